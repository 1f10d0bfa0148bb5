"""Attention within documents: a mask of which tokens of a packed row may see which.

A token sees the tokens of its own document up to itself, as if the document were alone in its row. Positions restart
with each document, so that the rotary embedding is bit for bit that of the document alone as well.
"""

import torch


def document_mask(document_positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to attention scores: 0 where a token may see another, else minus infinity.

    Args:
        document_positions: [B, T] int64, of each token that in its document; a document begins at every 0.
        dtype: of the result, which is best that of the scores: a mask of truth values is converted in every layer.

    Returns:
        [B, 1, T, T]: row of the batch, every head, token that looks, token that is seen.
    """
    document = (document_positions == 0).cumsum(1)
    hidden = document[:, :, None] != document[:, None, :]
    hidden |= torch.ones(hidden.shape[1:], dtype=torch.bool, device=hidden.device).triu(1)
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))[:, None]
