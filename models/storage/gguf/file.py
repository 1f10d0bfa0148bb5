"""GGUF files of Llama architectures: sizes, and weights dequantized one tensor at a time.

GGUF orders the rows of query and key matrices in neighbouring pairs, as torchtitan does and Hugging Face does not, so
no matrix needs to be permuted.
"""

from pathlib import Path
from typing import Any

import gguf
import torch
from gguf.quants import dequantize

from models.config import ModelConfig
from models.rotary import frequencies
from models.storage.errors import FormatError
from models.storage.sources import Weights

TOP = {
    "tok_embeddings.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER = {
    "attention.qkv_linear.wq.weight": "attn_q.weight",
    "attention.qkv_linear.wk.weight": "attn_k.weight",
    "attention.qkv_linear.wv.weight": "attn_v.weight",
    "attention.wo.weight": "attn_output.weight",
    "feed_forward.w1.weight": "ffn_gate.weight",
    "feed_forward.w2.weight": "ffn_down.weight",
    "feed_forward.w3.weight": "ffn_up.weight",
    "attention_norm.weight": "attn_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight",
}
ROPE_FACTORS = "rope_freqs.weight"
# Llama 3.1's and 3.2's; the file holds what follows from them, not the numbers themselves.
LLAMA3 = [{"rope_factor": factor, "rope_original_seq_len": 8192} for factor in (8.0, 32.0)]
OUR_SCALING = {
    f"layerskip.{field}": field
    for field in ("rope_factor", "rope_low_freq_factor", "rope_high_freq_factor", "rope_original_seq_len")
}
"""Keys of our own, in files that we have written, which do hold the numbers."""


def gguf_name(name: str) -> str:
    """GGUF's name of one of our tensors."""
    if name in TOP:
        return TOP[name]
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{LAYER[rest]}"


class GGUFWeights(Weights):
    """Weights of a GGUF file, dequantized to float32 when they are read."""

    def __init__(self, file: Path) -> None:
        """Raises FormatError."""
        try:
            self.reader = gguf.GGUFReader(file)
        except Exception as error:
            raise FormatError(f"{file}: incomplete, damaged or no GGUF file ({error})") from None
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        super().__init__(_size_of(self.reader, self.tensors, file), file)
        self.file, self.theirs = file, {name: gguf_name(name) for name in self.names}
        shapes = {n: tuple(int(s) for s in reversed(t.shape)) for n, t in self.tensors.items() if n != ROPE_FACTORS}
        self._check(str(file), shapes, self.theirs)

    def _read(self, name: str) -> torch.Tensor:
        tensor = self.tensors[self.theirs[name]]
        try:
            return torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise FormatError(f"{self.file}: {tensor.name} is stored as {kind}, which is not supported") from None


def _size_of(reader: Any, tensors: dict[str, Any], file: Path) -> ModelConfig:
    def field(key: str, default: Any = None) -> Any:
        found = reader.get_field(key)
        if found is None and default is None:
            raise FormatError(f"{file}: lacks {key}")
        return default if found is None else found.contents()

    architecture = field("general.architecture")
    if architecture != "llama":
        raise FormatError(f"{file}: architecture {architecture!r} is not 'llama'")
    if (kind := field("llama.rope.scaling.type", "none")) != "none":
        raise FormatError(f"{file}: RoPE scaling {kind!r} is not supported")
    if "token_embd.weight" not in tensors:
        raise FormatError(f"{file}: missing tensor token_embd.weight")
    try:
        size: dict[str, Any] = {
            "name": file.stem,
            "dim": int(field("llama.embedding_length")),
            "n_layers": int(field("llama.block_count")),
            "n_heads": int(field("llama.attention.head_count")),
            "n_kv_heads": int(field("llama.attention.head_count_kv", field("llama.attention.head_count"))),
            "ffn_dim": int(field("llama.feed_forward_length")),
            "vocab_size": int(tensors["token_embd.weight"].shape[1]),
            "max_seq_len": int(field("llama.context_length")),
            "rope_theta": float(field("llama.rope.freq_base", 10000.0)),
            # Stored as float32; 1e-5 is meant where 9.99999974e-06 is written.
            "norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
            "tie_embeddings": "output.weight" not in tensors,
        }
        plain = ModelConfig(**size)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{file}: {error}") from None
    if int(field("llama.rope.dimension_count", plain.head_dim)) != plain.head_dim:
        raise FormatError(f"{file}: head dimension is not embedding_length / head_count, which is not supported")
    if ROPE_FACTORS not in tensors:
        return plain
    factors = torch.from_numpy(tensors[ROPE_FACTORS].data.copy()).double()
    ours = {name: field(key, 0.0) for key, name in OUR_SCALING.items()}
    for scaling in (
        [ours | {"rope_original_seq_len": int(ours["rope_original_seq_len"])}] if all(ours.values()) else LLAMA3
    ):
        scaled = ModelConfig(**size | scaling)
        if torch.allclose(frequencies(plain) / frequencies(scaled), factors, rtol=1e-3):
            return scaled
    raise FormatError(f"{file}: {ROPE_FACTORS} is not Llama 3's RoPE scaling, which alone is supported")
