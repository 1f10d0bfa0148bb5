"""Models on disk: run folders, Hugging Face folders and GGUF files, read and written."""
