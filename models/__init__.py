"""The LayerSkip Llama: sizes, forward with exits, layer dropout, parallelism, and names in Hugging Face."""
