"""Do decoders agree: texts side by side, where and why they part, and a test of sampled output."""
