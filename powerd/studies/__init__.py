"""Studies: what a site does in situations that are played through one after the other."""
