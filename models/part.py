"""What one of several ranks holds of a model whose matrices are split among them: tensor parallelism.

Each rank has some of the heads, of the feed-forward's channels and of the vocabulary. All have the whole residual
stream: what a rank's heads or channels write into it is added up over the ranks.
"""

from dataclasses import replace

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
import torch.nn.functional as F

from models.config import ModelConfig


class Part:
    """The share of one rank of a process group; without a group, everything."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.ranks = (group.rank(), group.size()) if group else (0, 1)

    def size_of(self, size: ModelConfig) -> ModelConfig:
        """A model of this rank's heads and channels alone, whose `dim` is that of its heads together.

        Raises ValueError, which names the key, where the ranks cannot have equal shares.
        """
        n = self.ranks
        split = {"n_heads": size.n_heads, "n_kv_heads": size.kv_heads, "ffn_dim": size.ffn_dim}
        for key, number in {**split, "vocab_size": size.vocab_size}.items():
            if number % n:
                raise ValueError(f"model.{key}={number}: cannot be split among {n} ranks; start as many as divide it")
        return replace(
            size,
            dim=size.dim // n,
            n_heads=size.n_heads // n,
            n_kv_heads=size.kv_heads // n,
            ffn_dim=size.ffn_dim // n,
        )

    def rows(self, weight: torch.Tensor) -> torch.Tensor:
        """[out, in] -> the rows of this rank, which has these outputs."""
        return self._share(weight, 0)

    def columns(self, weight: torch.Tensor) -> torch.Tensor:
        """[out, in] -> the columns of this rank, which has these inputs."""
        return self._share(weight, 1)

    def _share(self, weight: torch.Tensor, dim: int) -> torch.Tensor:
        # A copy, since a view would keep the whole in memory.
        return weight.chunk(self.ranks, dim)[self.rank].clone() if self.group else weight

    def summed(self, x: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks."""
        return collectives.all_reduce(x, "sum", self.group) if self.group else x

    def gathered(self, x: torch.Tensor) -> torch.Tensor:
        """[N, n of this rank] -> [N, n of all ranks]."""
        return collectives.all_gather_tensor(x, 1, self.group) if self.group else x

    def embedded(self, tokens: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Tokens [...] int64 -> [..., D], each from the rank whose rows [V of this rank, D] have it."""
        if not self.group:
            return F.embedding(tokens, embedding)
        here = tokens - self.rank * len(embedding)
        elsewhere = (here < 0) | (here >= len(embedding))
        x = F.embedding(here.masked_fill(elsewhere, 0), embedding)
        return self.summed(x.masked_fill(elsewhere.unsqueeze(-1), 0.0))
