"""From text to packed rows of tokens: sources, split, tokenizer, cache, loader. Imports nothing else of ours."""
