"""The paper's experiments: its values, its models, and each at its world size without a GPU."""

from typing import Any

import pytest
import torch
from conftest import compose_config
from simulated_step import one_of, parallel_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor import DTensor, Shard

from models.spec import llama_config
from models.storage.hf import our_names, shape_of
from train.config import PretrainConfig
from train.cost.memory import memory_per_gpu, n_parameters
from train.recipe.curriculum import rotation
from train.recipe.exit_weights import exit_weights
from train.trainer import LayerSkipTrainer

# The paper, section 5 and Tables 8 to 10; where it is silent or contradicts itself, docs/experiments.md.
# GPUs, model, L, p_max, S(t), e_scale, curriculum, R, steps, rows a GPU, tokens in billions, learning rate.
PAPER = {
    "continual_llama2_7b": (64, "llama2_7b", 32, 0.1, "constant", 0.2, "rotational", 8, 50_000, 4, 52, 3e-5),
    "continual_llama2_13b": (64, "llama2_13b", 40, 0.1, "constant", 0.1, "rotational", 39, 50_000, 4, 52, 2e-5),
    "continual_llama3_8b": (64, "llama3_8b", 32, 0.1, "constant", 0.1, "rotational", 8, 400_000, 4, 419, 3e-5),
    "continual_llama3_2_1b": (64, "llama3_2_1b", 16, 0.1, "constant", 0.1, "rotational", 8, 800_000, 4, 839, 3e-5),
    "scratch_1_5b": (32, "llama_1_5b", 24, 0.1, "exponential", 0.2, "rotational", 23, 50_000, 4, 26, 8e-4),
    "scratch_llama2_7b": (32, "llama2_7b", 32, 0.2, "exponential", 0.2, "rotational", 31, 50_000, 4, 26, 8e-4),
    "code_llama1_7b": (32, "llama1_7b", 32, 0.1, "constant", 1.0, "rotational", 16, 10_000, 4, 5.2, 1e-4),
    "topv2_1_5b": (8, "llama_1_5b", 24, 0.2, "constant", 1.0, "gradual", None, 5_800, 8, None, 1e-4),
}
PARAMETERS = {
    "llama1_7b": 6_738_415_616,
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama3_8b": 8_030_261_248,
    "llama3_2_1b": 1_235_814_400,
    "llama2_70b": 68_976_648_192,
    "code_llama_7b": 6_738_546_688,
    "code_llama_34b": 33_743_970_304,
    "llama_1_5b": 1_364_297_728,
}
CONTEXT = {"llama3_8b": 8192, "llama3_2_1b": 131_072, "code_llama_7b": 16_384, "code_llama_34b": 16_384}


def experiment(name: str, *overrides: str) -> PretrainConfig:
    source = ["data.source=x"] if name.startswith("topv2") else []
    return compose_config(f"experiment={name}", *source, *overrides, world_size=PAPER[name][0])


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_values(name: str) -> None:
    config = experiment(name)
    gpus, model, n_layers, p_max, over_time, e_scale, curriculum, period, steps, rows, billions, lr = PAPER[name]
    dropout, exits, train = config.layer_dropout, config.early_exit, config.train
    assert (config.model.name, config.model.n_layers) == (model, n_layers)
    assert (dropout.p_max, dropout.depth_schedule, dropout.time_schedule) == (p_max, "exponential", over_time)
    assert (dropout.rescale, dropout.sampling) == ("none", "bernoulli")
    assert (exits.e_scale, exits.curriculum, exits.include_last_layer) == (e_scale, curriculum, True)
    assert period is None or rotation(exits, n_layers) == period
    assert (train.steps, train.local_batch_size, train.global_batch_size) == (steps, rows, rows * gpus)
    assert config.optimizer.lr == lr
    if billions is None:
        assert train.records_per_step is not None
        assert round(train.steps * train.records_per_step / 1e6, 2) == 1.48  # million samples
    else:
        assert train.steps * train.global_batch_size * train.seq_len / 1e9 == pytest.approx(billions, rel=0.01)
    assert config.checkpoint.needs_initial != name.startswith("scratch")


@pytest.mark.parametrize("name", PAPER)
def test_a_validation_needs_no_more_memory_than_a_step(name: str) -> None:
    """It holds the states of all exits, of which a step holds as much for its backward."""
    memory = memory_per_gpu(experiment(name, "train.precision=bf16"), PAPER[name][0], 1)
    assert memory.in_validation < max(memory.in_loss, memory.in_backward)


@pytest.mark.parametrize("name", PAPER)
def test_the_four_arms(name: str) -> None:
    for dropout in ([], ["layer_dropout=none"]):
        for exits in ([], ["early_exit=none"]):
            config = experiment(name, *dropout, *exits)
            assert (config.layer_dropout.p_max == 0) == bool(dropout)
            last = config.train.steps - 1
            assert (len(exit_weights(config.early_exit, last, config.model.n_layers, last + 1)) == 1) == bool(exits)


@pytest.mark.parametrize("model", PARAMETERS)
def test_sizes_are_those_of_the_published_models(model: str) -> None:
    size = compose_config(f"model={model}").model
    assert n_parameters(size) == PARAMETERS[model]
    with torch.device("meta"):
        built = llama_config(size).build()
    assert sum(p.numel() for p in built.parameters()) == PARAMETERS[model]
    assert size.head_dim == {"llama3_2_1b": 64}.get(model, 128)
    assert size.kv_heads == (8 if model.startswith("llama3") or size.n_heads == 64 else size.n_heads)
    assert size.rope_theta == {"llama3": 500_000, "code_l": 1_000_000}.get(model[:6], 10_000)
    assert size.max_seq_len == CONTEXT.get(model, 4096)
    scaling = (size.rope_factor, size.rope_low_freq_factor, size.rope_high_freq_factor, size.rope_original_seq_len)
    assert scaling == ((32, 1, 4, 8192) if model == "llama3_2_1b" else (1, 1, 4, 8192))
    assert size.norm_eps == (1e-6 if model == "llama1_7b" else 1e-5)


def check_shards(model: Any, config: PretrainConfig, world_size: int) -> None:
    """State-dict keys and shapes are the model's, and rank 0 holds its part of every parameter."""
    state = model.state_dict()
    tied = {"lm_head.weight"} if config.model.tie_embeddings else set()  # under both names
    assert set(state) == set(our_names(config.model)) | tied
    for name in our_names(config.model):
        assert tuple(state[name].shape) == shape_of(name, config.model), name
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor), name
        assert parameter.placements == (Shard(0),), name
        assert parameter.dtype == torch.float32
        rows = -(-parameter.shape[0] // world_size)
        assert tuple(parameter.to_local().shape) == (rows, *parameter.shape[1:]), name


def a_step_that_drops(config: PretrainConfig) -> tuple[int, list[torch.Tensor | None]]:
    """A late step in which rows skip layers, and the kept rows of each layer, as the trainer draws them."""
    trainer: Any = LayerSkipTrainer.__new__(LayerSkipTrainer)  # without a model
    trainer.recipe, trainer.n_layers, trainer.total_steps = config, config.model.n_layers, config.train.steps
    trainer.micro_batch, trainer.device = 0, torch.device("cpu")
    for t in range(config.train.steps - 1, 0, -1):
        kept, _ = trainer.dropout_plan(t, config.train.local_batch_size or 0)
        assert kept is not None
        if any(k is not None for k in kept):
            return t, kept
    raise AssertionError("nothing is ever dropped")


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_a_step_at_the_papers_world_size(name: str) -> None:
    world_size = PAPER[name][0]
    # As many tokens in a chunk as in the micro-batch: shapes are looked at, and memory costs nothing here.
    config = experiment(name, "train.precision=bf16", "train.loss_chunk_tokens=16384")
    size, rows, seq_len = config.model, config.train.local_batch_size or 0, config.train.seq_len
    t, kept = a_step_that_drops(config)
    weights = exit_weights(config.early_exit, t, size.n_layers, config.train.steps)
    with one_of(world_size):
        model, loss_fn = parallel_model(config, world_size)
        check_shards(model, config, world_size)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device="cpu")
            loss_fn.set_lm_head(model.lm_head)
            model._skip_lm_head = True
            tokens = torch.zeros(rows, seq_len, dtype=torch.int64)
            states = model(tokens, exits=tuple(weights), kept_rows=kept)
            assert tuple(states.shape) == (len(weights) * rows, seq_len, size.dim)
            assert states.dtype == torch.bfloat16
            n_valid = torch.tensor(float(config.train.global_batch_size * seq_len))
            loss, parts = loss_fn(states, tokens, n_valid, weights=tuple(weights.values()))
            assert (loss.shape, loss.dtype, parts["exit_losses"].shape) == ((), torch.float32, (len(weights),))
            loss.backward()
        skipped = {layer for layer, k in enumerate(kept) if k is not None and len(k) == 0}
        for parameter_name, parameter in model.named_parameters():
            if any(parameter_name.startswith(f"layers.{layer}.") for layer in skipped):
                assert parameter.grad is None
            else:
                assert parameter.grad.to_local().shape == parameter.to_local().shape, parameter_name
                assert parameter.grad.dtype == torch.float32
