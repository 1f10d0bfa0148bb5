"""Prompts: where they come from, the chat template around them, and the text that tokens make."""
