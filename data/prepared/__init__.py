"""Sources as tokens on disk: memory-mapped shards, made on all cores and resumable."""
