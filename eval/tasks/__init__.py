"""What is measured on: prompts, references, stop rules and scores. One file a task."""
