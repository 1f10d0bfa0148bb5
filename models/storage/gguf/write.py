"""Weights, sizes and tokenizer as a GGUF file, as llama.cpp reads it; one tensor is in memory at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import quant_shape_to_byte_shape, quantize

from conf.progress import each
from models.config import ModelConfig
from models.rotary import frequencies
from models.storage.errors import FormatError
from models.storage.gguf.file import OUR_SCALING, ROPE_FACTORS, gguf_name
from models.storage.gguf.vocabulary import SENTENCEPIECE, Vocabulary
from models.storage.hf import shape_of
from models.storage.sources import Weights

KINDS = {torch.float64: Kind.F32, torch.float32: Kind.F32, torch.float16: Kind.F16, torch.bfloat16: Kind.BF16}
FILE_TYPES = {
    Kind.F32: gguf.LlamaFileType.ALL_F32,
    Kind.F16: gguf.LlamaFileType.MOSTLY_F16,
    Kind.BF16: gguf.LlamaFileType.MOSTLY_BF16,
    Kind.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
}


def write_gguf(
    weights: Weights, file: Path, *, kind: Kind | None, vocabulary: Vocabulary | None, name: str, description: str
) -> None:
    """Write the file.

    Args:
        weights: of a Llama.
        file: to write.
        kind: of the matrices: F32, F16, BF16 or Q8_0; None: that of each tensor. Norms are float32, as in llama.cpp.
        vocabulary: the tokenizer; None: the file says that there is none.
        name: of the model.
        description: a sentence about it.

    Raises FormatError for rows that Q8_0's blocks do not divide, and for a tokenizer with more tokens than the model.
    """
    size = weights.size
    kinds = {ours: _kind(ours, weights, kind) for ours in weights}
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_description(description)
    writer.add_file_type(FILE_TYPES[kinds["tok_embeddings.weight"]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_sizes(writer, size)
    _add_tokenizer(writer, vocabulary.filled_up(size.vocab_size) if vocabulary else None)
    factors = None if size.rope_factor == 1.0 else _rope_factors(size)
    if factors is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for ours, stored in kinds.items():
        shape = quant_shape_to_byte_shape(shape_of(ours, size), stored)  # in bytes, whatever the kind
        writer.add_tensor_info(gguf_name(ours), shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for ours in each(list(kinds), "writing weights", unit="tensor"):
        writer.write_tensor_data(_numbers(weights[ours], kinds[ours]))
    writer.close()


def _kind(name: str, weights: Weights, kind: Kind | None) -> Kind:
    shape = shape_of(name, weights.size)
    if len(shape) == 1:
        return Kind.F32
    if kind is Kind.Q8_0 and shape[1] % gguf.GGML_QUANT_SIZES[kind][0]:
        raise FormatError(
            f"dtype=q8_0: {name} has rows of {shape[1]} numbers, which must be a multiple of its blocks of"
            f" {gguf.GGML_QUANT_SIZES[kind][0]}; take float16 or bfloat16"
        )
    return KINDS[weights[name].dtype] if kind is None else kind


def _numbers(tensor: torch.Tensor, kind: Kind) -> Any:
    """A tensor's numbers as an array of bytes."""
    if kind is Kind.BF16:
        return tensor.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
    if kind is Kind.F16:
        return tensor.to(torch.float16).contiguous().numpy()
    return quantize(tensor.to(torch.float32).contiguous().numpy(), kind)


def _rope_factors(size: ModelConfig) -> Any:
    """By what each frequency is divided, as float32 [head_dim / 2]."""
    return (frequencies(replace(size, rope_factor=1.0)) / frequencies(size)).to(torch.float32).numpy()


def _add_sizes(writer: Any, size: ModelConfig) -> None:
    writer.add_vocab_size(size.vocab_size)
    writer.add_context_length(size.max_seq_len)
    writer.add_embedding_length(size.dim)
    writer.add_block_count(size.n_layers)
    writer.add_feed_forward_length(size.ffn_dim)
    writer.add_rope_dimension_count(size.head_dim)
    writer.add_rope_freq_base(size.rope_theta)
    writer.add_head_count(size.n_heads)
    writer.add_head_count_kv(size.kv_heads)
    writer.add_layer_norm_rms_eps(size.norm_eps)
    if size.rope_factor != 1.0:
        for key, field in OUR_SCALING.items():
            writer.add_float64(key, float(getattr(size, field)))


def _add_tokenizer(writer: Any, vocabulary: Vocabulary | None) -> None:
    if vocabulary is None:
        writer.add_tokenizer_model("none")
        return
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_tokenizer_pre(vocabulary.pre or "default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.kind == SENTENCEPIECE:
        writer.add_token_scores(vocabulary.scores)
    else:
        writer.add_token_merges(vocabulary.merges)
    writer.add_add_space_prefix(vocabulary.adds_space)
    writer.add_add_bos_token(vocabulary.adds_bos)
    for add, i in (
        (writer.add_bos_token_id, vocabulary.bos_id),
        (writer.add_eos_token_id, vocabulary.eos_id),
        (writer.add_unk_token_id, vocabulary.unk_id),
    ):
        if i is not None:
            add(i)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
