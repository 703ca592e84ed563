"""What is going on, as columns: the snapshot and the lease book."""
