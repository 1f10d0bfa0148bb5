"""Decoding with a trained model by one engine, and everything that is measured of it.

A module imports from its own room and from those below it, as tests/test_layout.py lists them. Nothing is imported
here: the sandbox's jail loads this package in an interpreter without any other.
"""
