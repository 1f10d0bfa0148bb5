"""A text cut into windows of T tokens that may overlap, and records one by one; each token is predicted once."""

import numpy as np

from data.batches.packing import IGNORE_INDEX, ConcatRows, LoneRows, Rows
from data.prepared.shards import Tokens


def rows_of(tokens: Tokens, seq_len: int, stride: int) -> tuple[Rows, float, str]:
    """What is passed through a model, how many tokens a row of it predicts (mean), and both in words.

    Records of a prompt and a completion stand alone, as they are decoded and as training keeps them apart.
    """
    if not tokens.has_prompts:
        return Windows(tokens, seq_len, stride), stride, f"windows of {seq_len} tokens, stride {stride}"
    records = LoneRows(tokens, seq_len)
    predicted = float(np.mean(np.asarray(records.lengths) - np.asarray(records.masked)))
    return records, predicted, f"{len(records):,} records, each by itself"


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
