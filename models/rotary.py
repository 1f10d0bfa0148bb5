"""Frequencies of the rotary embedding, with Llama 3's scaling for contexts longer than the first training's."""

import math

import torch

from models.config import ModelConfig


def frequencies(size: ModelConfig) -> torch.Tensor:
    """Radians per position of each pair of channels: [head_dim/2] float64.

    Llama 3's scaling divides what turns fewer than `rope_low_freq_factor` times in the original context by
    `rope_factor`, leaves what turns more than `rope_high_freq_factor` times, and goes over smoothly in between.
    """
    half = size.head_dim // 2
    plain = size.rope_theta ** -(torch.arange(half, dtype=torch.float64) / half)
    if size.rope_factor == 1.0:
        return plain
    turns = size.rope_original_seq_len * plain / (2 * math.pi)
    low, high = size.rope_low_freq_factor, size.rope_high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * plain + (1 - kept) * plain / size.rope_factor
