"""GGUF files: sizes, weights and tokenizers, read and written."""
