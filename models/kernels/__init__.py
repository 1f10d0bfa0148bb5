"""What decoding computes with: weight matrices, and our own products and blocks for CPUs."""
