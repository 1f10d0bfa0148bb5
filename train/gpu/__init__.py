"""What concerns GPUs alone: their allocator, and the run that measures everything that needs one."""
