"""Decoding with a trained model: one engine for full depth, early exit and self-speculation, and what is measured.

A module imports from its own room and from those below it, as tests/test_layout.py lists them. Nothing is imported
here: the sandbox's jail loads this package in an interpreter without any other.
"""
