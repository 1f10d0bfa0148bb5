"""The size of a Llama model, and which sizes are possible."""

from dataclasses import dataclass

from omegaconf import MISSING

from conf.checks import at_least, at_most

MOST_LAYERS = 10_000
"""Schedules are looked at layer by layer before anything starts."""


@dataclass(kw_only=True)
class ModelConfig:
    """Sizes of a Llama-family decoder. Nothing here depends on how it is trained.

    Raises ValueError, naming the key and what is allowed, for sizes that cannot be built.
    """

    name: str = MISSING
    """Short name, used in the run folder."""
    dim: int = MISSING
    """Width of the residual stream."""
    n_layers: int = MISSING
    """Number of transformer blocks L; at least 2 to train, because D(l) = 2^(l/(L-1)) - 1."""
    n_heads: int = MISSING
    """Query heads; dim / n_heads is the (even) head dimension."""
    n_kv_heads: int | None = None
    """Key and value heads (grouped-query attention); null: as many as n_heads."""
    ffn_dim: int = MISSING
    """Hidden width of the SwiGLU feed-forward."""
    vocab_size: int = MISSING
    """Rows of the embedding and of the LM head; a tokenizer trained for the run gets this many pieces."""
    max_seq_len: int = MISSING
    """Longest context, in tokens, the rotary table is built for."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""
    rope_factor: float = 1.0
    """Llama 3's scaling: low frequencies are divided by it, for longer contexts; 1: no scaling."""
    rope_low_freq_factor: float = 1.0
    """Frequencies with fewer turns in the original context than this are divided by rope_factor."""
    rope_high_freq_factor: float = 4.0
    """Frequencies with more turns than this stay."""
    rope_original_seq_len: int = 8192
    """The original context."""
    norm_eps: float = 1e-5
    """Epsilon of every RMSNorm."""
    tie_embeddings: bool = False
    """Whether embedding and LM head share one matrix."""

    def __post_init__(self) -> None:
        at_least(1, self, "dim", "n_layers", "n_heads", "ffn_dim", "vocab_size", "max_seq_len", section="model.")
        at_most(MOST_LAYERS, self, "n_layers", section="model.")
        if self.dim % self.n_heads:
            raise ValueError(f"model.n_heads={self.n_heads}: must divide model.dim={self.dim}")
        if self.head_dim % 2:
            raise ValueError(
                f"model.n_heads={self.n_heads}: model.dim / n_heads = {self.head_dim} must be even (rotary pairs)"
            )
        if self.kv_heads < 1 or self.n_heads % self.kv_heads:
            raise ValueError(f"model.n_kv_heads={self.n_kv_heads}: must divide model.n_heads={self.n_heads}")
        if self.rope_theta <= 0:
            raise ValueError(f"model.rope_theta={self.rope_theta}: must be above 0")
        if self.rope_factor < 1:
            raise ValueError(f"model.rope_factor={self.rope_factor}: must be at least 1")
        if not 0 < self.rope_low_freq_factor < self.rope_high_freq_factor:
            raise ValueError(
                f"model.rope_low_freq_factor={self.rope_low_freq_factor}: must be above 0, below"
                f" rope_high_freq_factor={self.rope_high_freq_factor}"
            )
        if not 0 < self.norm_eps < 1:
            raise ValueError(f"model.norm_eps={self.norm_eps}: must be above 0 and below 1")

    def check_trainable(self) -> None:
        """Raise ValueError, naming the key, for a model without a layer to leave early."""
        if self.n_layers < 2:
            raise ValueError(f"model.n_layers={self.n_layers}: must be at least 2, or there is no early exit")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads, with the default filled in."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads
