"""Decoding with a trained model, and measuring it. Comes with the next release."""
