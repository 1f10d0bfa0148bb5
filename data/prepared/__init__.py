"""Sources as tokens on disk: shards, made on all cores and resumable."""
