"""What the wires allow: load a drawing, see who feeds whom, make limit rows, hold them against pandapower."""
