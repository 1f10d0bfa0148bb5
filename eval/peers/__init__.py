"""Other decoders on the same weights and prompts: transformers, economize and this engine, side by side."""
