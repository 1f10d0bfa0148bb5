"""Runs programs that nobody has read: without network, without a way to write elsewhere, within limits."""
