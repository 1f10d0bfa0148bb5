"""Text to ids and back, and the text that a tokenizer is trained on."""
