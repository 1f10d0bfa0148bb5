"""Our model behind the interface of lm-evaluation-harness (PyPI lm-eval)."""
