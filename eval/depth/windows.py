"""A text cut into windows of T tokens that may overlap; each token is predicted once."""

import numpy as np

from data.batches.packing import IGNORE_INDEX, ConcatRows
from data.prepared.shards import Tokens


class Windows(ConcatRows):
    """Window i has the tokens from i * stride on, and predicts what no window before it has predicted.

    With stride = T these are the rows of training and its validation.
    """

    def __init__(self, tokens: Tokens, seq_len: int, stride: int) -> None:
        """Cut `tokens` [N], the first of which no window predicts; 1 <= stride <= seq_len."""
        super().__init__(tokens, seq_len)
        self.stride = stride

    def __len__(self) -> int:
        return 1 + max(0, -(-(len(self.tokens) - 1 - self.seq_len) // self.stride))

    def fill(
        self, row: int, inputs: np.ndarray, labels: np.ndarray, document_positions: np.ndarray | None = None
    ) -> None:
        """See data.batches.packing.Rows."""
        if row < len(self):  # a last batch is filled up with rows that have nothing
            self.fill_from(row * self.stride, inputs, labels, document_positions)
            if row:
                labels[: self.seq_len - self.stride] = IGNORE_INDEX
