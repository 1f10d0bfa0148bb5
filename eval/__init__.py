"""Decoding with a trained model: one engine for full depth, early exit and self-speculation."""
