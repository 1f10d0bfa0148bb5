"""The tokens that drafts are chosen from, where those are not all: the most frequent of the text a model has learned.

A small model's head is worth several of its layers, and a draft through the first few layers costs mostly its head. A
head of the frequent tokens alone is a fraction of it (FR-Spec, arXiv 2502.14856, for drafts of another model). What is
verified, by the whole head, stays the full model's text: a token that drafts cannot be is one more that they miss.
"""

from pathlib import Path

import numpy as np
import torch

from conf.errors import reason
from conf.run_folders import TOKEN_COUNTS
from conf.strict import ConfigError


def draft_ids(folder: Path, n: int, vocab_size: int) -> torch.Tensor:
    """[n] int64, ascending: the tokens of a checkpoint's folder that drafts are chosen from.

    Without counts of its text, those of the smallest numbers, which tokenizers give to what they have found first: the
    most frequent. Raises ConfigError for as many as there are or more, and for counts of another vocabulary.
    """
    if n >= vocab_size:
        raise ConfigError(f"machine.draft_vocab={n}: must be less than the vocabulary's {vocab_size:,} tokens")
    file = folder / TOKEN_COUNTS
    if not file.is_file():
        return torch.arange(n)
    try:
        counts = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read ({reason(error)}); remove it to draft without it") from None
    if counts.shape != (vocab_size,):
        raise ConfigError(f"{file}: counts {counts.size:,} tokens, the model has {vocab_size:,}; remove it")
    # Of tokens as frequent as each other the earlier ones; of those that never occur, too.
    chosen = np.argsort(-counts, kind="stable")[:n]
    return torch.from_numpy(np.sort(chosen))
