"""From tokens to packed rows to batches, in a reproducible order; streams that can go on at any token."""
