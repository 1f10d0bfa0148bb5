"""What keeps a long run alive, and its checkpoints good, through faults of machines, disks and batches."""
