"""What each exit predicts: perplexity by exit, the lens, and their curves."""
