"""What becomes of drafted tokens: which ones the full model rejects, and what is known of them."""
