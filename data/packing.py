"""Tokens packed into rows [T]: one after another over document ends, none lost, the last row filled up."""

import numpy as np
import torch

IGNORE_INDEX = -100  # torch's label for "no loss here"


class PackedRows(torch.utils.data.Dataset):
    """Row i holds tokens i*T .. i*T+T-1 as input and the tokens after each as labels.

    Every token but the first is a label exactly once. Rows past the end hold no labels at all: they fill a last batch.
    """

    def __init__(self, tokens: np.ndarray, seq_len: int, fill_id: int) -> None:
        """Cut `tokens` [N] into ceil((N-1)/T) rows; `fill_id` is the input where there are no tokens left."""
        self.tokens, self.seq_len, self.fill_id = tokens, seq_len, fill_id

    def __len__(self) -> int:
        return max(1, -(-(len(self.tokens) - 1) // self.seq_len))

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(inputs [T], labels [T]), both int64."""
        start = row * self.seq_len
        window = torch.from_numpy(self.tokens[start : start + self.seq_len + 1].astype(np.int64))
        n_labels = max(0, len(window) - 1)
        inputs = torch.full((self.seq_len,), self.fill_id)
        labels = torch.full((self.seq_len,), IGNORE_INDEX)
        inputs[:n_labels] = window[:n_labels]
        labels[:n_labels] = window[1:]
        return inputs, labels
