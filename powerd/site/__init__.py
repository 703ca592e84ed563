"""What is BUILT: the site file, its shape, and every fault a reader can find in one value."""
