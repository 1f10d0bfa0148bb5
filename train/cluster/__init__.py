"""What a run has to do with its cluster: the launcher, signals, other ranks and other processes."""
