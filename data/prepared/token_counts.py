"""How often each token occurs in a text: what a vocabulary of drafts is chosen by."""

from collections.abc import Sequence

import numpy as np

from data.prepared.shards import Tokens

MOST = 1 << 22
"""Tokens of a text that are counted, from its beginning; more would hardly change which are frequent."""


def token_counts(texts: Sequence[Tokens], vocab_size: int) -> np.ndarray:
    """[V] int64. Of records with prompts the completions alone are counted: they are what is generated."""
    counts = np.zeros(vocab_size, np.int64)
    for text in texts:
        stop = min(MOST, len(text))
        tokens = text.read(0, stop)
        counts += np.bincount(tokens[~text.in_prompt(0, stop)] if text.has_prompts else tokens, minlength=vocab_size)
    return counts
