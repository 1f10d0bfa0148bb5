"""What a run costs, computed before it starts, and what train.benchmark measures."""
