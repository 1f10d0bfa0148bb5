"""What a run tells while it trains: console, metrics.jsonl, W&B, the summary and its picture."""
