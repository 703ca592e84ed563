"""The tick: ``absorb`` (events into the snapshot), ``step`` (snapshot into a decision)."""
