"""Policies at work: what each one plans, and what it learns."""
