"""What train.describe says about many ranks, against steps on ranks that do not exist.

Collectives and their bytes are those of the formula exactly; memory is within a few percent of what lives.
"""

from collections import Counter
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from conftest import compose_config
from live_memory import LiveMemory
from simulated_step import Collectives, fused_norm, one_of, parallel_model, simulated_step

from models.row_sampling import Sampling
from models.spec import llama_config
from train.config import PretrainConfig
from train.cost.communication import Collective, Kind, Work, chance_of_no_row, collectives, mean_work, work_at
from train.cost.memory import Memory, memory_per_gpu
from train.monitoring.validation import exit_sums

SMALL = [
    "model=llama_debug",
    "model.n_layers=3",
    "train.precision=bf16",
    "train.loss_chunk_tokens=128",
    "train.local_batch_size=2",
    "train.global_batch_size=32",
]
WIDE = ["model=llama2_7b", "model.n_layers=4", "train.precision=bf16", "train.global_batch_size=128"]


def every_third(cases: dict[str, Any]) -> list[Any]:
    """All of them as parameters; a third is tried each time, the others with the slow tests."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else [case]), id=name, marks=[] if i % 3 == 0 else pytest.mark.slow
        )
        for i, (name, case) in enumerate(cases.items())
    ]


def micro_batches(config: PretrainConfig, world_size: int) -> int:
    rows = (config.train.local_batch_size or 0) * config.parallelism.data_ranks(world_size)
    return config.train.global_batch_size // rows


def counted(found: list[Collective]) -> Counter[tuple[str, int, int]]:
    sums: Counter[tuple[str, int, int]] = Counter()
    for c in found:
        assert c.count == int(c.count)
        sums[c.kind.value, int(c.n_bytes), c.ranks] += int(c.count)
    return sums


TABLE = {
    "fsdp": "",
    "fsdp, recomputed": "activation_checkpoint=full",
    "fsdp, partly recomputed": "activation_checkpoint=selective",
    "one micro-batch": "train.global_batch_size=16",
    "fp32": "train.precision=fp32",
    "tied": "model.tie_embeddings=true",
    "rows that do not divide": "model.vocab_size=4097 model.dim=72 model.ffn_dim=201",
    "hsdp": "parallelism.replicate=2",
    "replicas alone": "parallelism.replicate=8",
    "tp": "parallelism.tensor=2",
    "tp, recomputed": "parallelism.tensor=2 activation_checkpoint=full",
    "tp, partly recomputed": "parallelism.tensor=2 activation_checkpoint=selective",
    "cp": "parallelism.context=2",
    "cp, recomputed": "parallelism.context=2 activation_checkpoint=full",
    "cp, partly recomputed": "parallelism.context=2 activation_checkpoint=selective",
    "hsdp tp cp": "parallelism.replicate=2 parallelism.tensor=2 parallelism.context=2",
}


@pytest.mark.parametrize("how", every_third(TABLE))
def test_collectives_of_a_step(how: str) -> None:
    config = compose_config(*SMALL, *how.split(), world_size=8)
    seen = simulated_step(config, 8, [0, 2], micro_batches=micro_batches(config, 8))
    assert Counter(seen.collectives) == counted(collectives(config, 8, Work(blocks=3, rows=3, exits=2)))


def test_blocks_that_no_row_passes_are_neither_gathered_nor_reduced() -> None:
    config = compose_config(*SMALL, "train.global_batch_size=16", world_size=8)
    none, one = torch.tensor([], dtype=torch.int64), torch.tensor([1])
    seen = simulated_step(config, 8, [0, 2], kept=[None, none, one])
    assert Counter(seen.collectives) == counted(collectives(config, 8, Work(blocks=2, rows=1.5, exits=2)))


def test_blocks_above_the_last_exit_are_neither_gathered_nor_reduced() -> None:
    config = compose_config(*SMALL, "train.global_batch_size=16", world_size=8)
    seen = simulated_step(config, 8, [0])
    assert Counter(seen.collectives) == counted(collectives(config, 8, Work(blocks=1, rows=1, exits=1)))


def test_work_is_what_the_recipe_makes_of_it() -> None:
    recipe = ["layer_dropout=exp", "layer_dropout.p_max=0.5", "early_exit=rotational", "early_exit.rotation_period=2"]
    config = compose_config(*SMALL, *recipe, world_size=8)
    p = [0.0, 0.5 * (2**0.5 - 1), 0.5]
    work = work_at(config, 0)
    assert work.blocks == pytest.approx(3 - sum(p_l**2 for p_l in p))
    assert work.rows == pytest.approx(3 - sum(p))
    assert (work_at(config, 0).exits, work_at(config, 1).exits) == (1, 2)  # of layers 0 and 2, e(0) is 0; 1 and 2
    assert mean_work(config, [0, 1]) == replace(work, exits=1.5)


def test_chance_that_no_row_is_kept() -> None:
    assert chance_of_no_row(0.5, 4, Sampling.bernoulli) == 0.5**4
    assert chance_of_no_row(0.5, 4, Sampling.stratified) == 0
    assert chance_of_no_row(0.9, 4, Sampling.stratified) == pytest.approx(0.6)  # 3 of 4 rows, or all, 3.6 on average


def test_bytes_sent_in_a_ring() -> None:
    assert Collective("", Kind.all_gather, 4, 100, 3).sent == 3 * 75
    assert Collective("", Kind.reduce_scatter, 4, 100, 1).sent == 75
    assert Collective("", Kind.all_reduce, 4, 100, 1).sent == 150


BIG = {
    "7b on 64": (64, "model=llama2_7b train.local_batch_size=4"),
    "70b on 512": (512, "model=llama2_70b train.local_batch_size=1"),
    "70b on 512, tp": (512, "model=llama2_70b train.local_batch_size=2 parallelism.tensor=8"),
    "70b on 512, hsdp": (512, "model=llama2_70b train.local_batch_size=1 parallelism.replicate=8"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "how"), BIG.values(), ids=BIG.keys())
def test_a_step_of_the_whole_model(world_size: int, how: str) -> None:
    options = ["train.precision=bf16", "train.seq_len=4096", "train.global_batch_size=1024"]
    config = compose_config(*options, "activation_checkpoint=full", *how.split(), world_size=world_size)
    n = config.model.n_layers
    exits = [*range(7, n - 1, 8), n - 1]
    work = Work(blocks=n, rows=n, exits=len(exits))
    config.train.global_batch_size //= micro_batches(config, world_size)
    seen = simulated_step(config, world_size, exits)
    assert Counter(seen.collectives) == counted(collectives(config, world_size, work))


def test_a_validation_gathers_each_unit_once() -> None:
    config = compose_config(*SMALL, world_size=8)
    size, tokens = config.model, torch.zeros(2, 64, dtype=torch.int64)
    with one_of(8):
        model, _ = parallel_model(config, 8)
        model.to_empty(device="cpu")
        model._skip_lm_head = True
        for _ in range(2):
            with Collectives() as seen:
                exit_sums(model, model.lm_head, [(tokens, tokens)], range(3), torch.ones(size.vocab_size), 16)
            embedding, block = 2 * size.vocab_size * size.dim, 2 * 49_280
            sizes = [embedding, *[block] * 3, embedding + 2 * size.dim]
            assert Counter(seen.seen) == Counter(("all_gather", n_bytes, 8) for n_bytes in sizes)


def without_optimizer(memory: Memory) -> Memory:
    """The simulated step has none."""
    return replace(memory, optimizer=0.0)


MEMORY = {
    "none, 1 exit": (1, "activation_checkpoint=none"),
    "selective": (4, "activation_checkpoint=selective"),
    "full, 1 exit": (1, "activation_checkpoint=full"),
    "full": (4, "activation_checkpoint=full"),
    "many rows": (4, "activation_checkpoint=full train.global_batch_size=512 train.local_batch_size=4"),
    "one chunk": (1, "activation_checkpoint=full model.vocab_size=128256 train.seq_len=2048"),
    "large vocabulary": (4, "activation_checkpoint=full model.vocab_size=128256 train.seq_len=2048"),
    "tied": (4, "activation_checkpoint=full model.tie_embeddings=true"),
    "hsdp": (1, "activation_checkpoint=full parallelism.replicate=8"),
    "cp": (4, "activation_checkpoint=none train.local_batch_size=2 parallelism.context=4"),
}


@pytest.mark.parametrize(("n_exits", "how"), every_third(MEMORY))
def test_memory_is_what_lives_in_a_step(n_exits: int, how: str) -> None:
    options = ["train.seq_len=4096", "train.local_batch_size=1"]
    config = compose_config(*WIDE, *options, *how.split(), world_size=64)
    seen = simulated_step(config, 64, range(4 - n_exits, 4), micro_batches=2, memory=True)
    estimate = without_optimizer(memory_per_gpu(config, 64, n_exits))
    # A CPU's attention is unknown to the selective policy: recomputed here, kept on a GPU.
    kept = 4 * 4096 * (2 * 4096 + 4 * 32) if "selective" in how else 0
    assert seen.peaks["loss"] == pytest.approx(estimate.in_loss - kept, rel=0.02)
    assert seen.peak == pytest.approx(estimate.peak - kept, rel=0.08)


@pytest.mark.parametrize("chunk", [4, 1024])
def test_memory_of_a_validation(chunk: int) -> None:
    """Measured with numbers and without FSDP, where nothing is gathered; once a block needs more, once the head."""
    options = ["train.precision=bf16", "train.local_batch_size=2", "train.seq_len=512"]
    config = compose_config("model=llama_debug", *options, f"train.loss_chunk_tokens={chunk}")
    tokens, size = torch.zeros(2, 512, dtype=torch.int64), config.model
    with patch.object(torch.nn.functional, "rms_norm", fused_norm), LiveMemory() as live:
        model = llama_config(config.model).build().bfloat16()
        model.init_states()
        model._skip_lm_head = True
        token_bytes, before, live.peak = torch.ones(size.vocab_size), live.n_bytes(), 0
        exit_sums(model, model.lm_head, [(tokens, tokens)], range(6), token_bytes, chunk)
    block, head, n = 49_280, size.vocab_size * size.dim, 2 * 512
    states = n * 2 * size.dim
    at_work, of_logits = n * 2 * (3 * size.ffn_dim + 4 * size.dim) - states, chunk * size.vocab_size * 12
    assert (at_work > of_logits) == (chunk == 4)
    memory = memory_per_gpu(config, 1, 1).validation
    assert memory == 2 * head + 6 * states + max(4 * block + at_work, 2 * block + of_logits)
    assert live.peak - before == pytest.approx(6 * states + max(at_work, of_logits), rel=0.15)
