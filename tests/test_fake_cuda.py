"""Training and decoding on "cuda" without a GPU: tensors that have a device and a shape, and no numbers.

A tensor on the wrong device, or of a shape that a kernel does not take, raises an error as it would on a GPU. It needs
a torch that was built for CUDA (docs/scaling.md), whose GPU need not exist; backward passes do need one, and are left
out.
"""

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from conftest import compose_config, tiny_model
from test_parity_hf import our_model
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from eval.engine.decoding import Engine
from eval.engine.policy import (
    Autoregressive,
    ConfidenceStop,
    DraftModel,
    DynamicExit,
    EarlyExit,
    Policy,
    PromptLookup,
    SelfSpeculative,
)
from eval.engine.rows import Request
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from models.inference import InferenceLlama
from models.spec import llama_config
from train.config import PretrainConfig
from train.monitoring.validation import exit_sums
from train.recipe.early_exit_loss import EarlyExitLoss
from train.recipe.exit_weights import exit_weights
from train.trainer import LayerSkipTrainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.version.cuda is None, reason="this torch is not built for CUDA"),
]
CUDA = torch.device("cuda", 0)


class NamedMask(NamedTuple):
    """In place of torch's causal_lower_right, a kind of tensor that cannot be fake."""

    seq_len_q: int
    seq_len_kv: int


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | NamedMask | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    dropout_p: float = 0.0,
) -> torch.Tensor:
    """In place of torch's, which asks the GPU what it is before it chooses a kernel: checks what all kernels want."""
    (*batch, heads, n, width), keys = q.shape, k.shape[-3]
    assert {t.device for t in (q, k, v)} == {CUDA}
    assert q.dtype == k.dtype == v.dtype
    assert k.shape == v.shape == (*batch, keys, k.shape[-2], width)
    assert heads == keys or (enable_gqa and heads % keys == 0)
    assert not (is_causal and attn_mask is not None)
    if isinstance(attn_mask, NamedMask):
        assert (attn_mask.seq_len_q, attn_mask.seq_len_kv) == (n, k.shape[-2])
    elif attn_mask is not None:
        assert (attn_mask.device, attn_mask.dtype) == (CUDA, q.dtype)
        torch.broadcast_shapes(attn_mask.shape, (*batch, heads, n, k.shape[-2]))
    return q + (k.sum() + v.sum()).to(q.dtype)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything is a fake tensor; what the host reads of one is 0."""
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.synchronize", lambda device=None: None)
    monkeypatch.setattr("torch.nn.init.trunc_normal_", lambda weight, **_: weight)  # it reads numbers
    # Else a single number that is known is really copied to the device.
    monkeypatch.setattr("torch._subclasses.fake_tensor.CONSTANT_NUMEL_LIMIT", -1)
    monkeypatch.setattr("models.inference.causal_lower_right", NamedMask)
    monkeypatch.setattr("models.inference.CausalBias", NamedMask)
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attention)
    generator = torch.Generator
    monkeypatch.setattr("torch.Generator", lambda device=None: generator())

    def zeros(tensor: FakeTensor) -> Any:
        number: Any = 0.0 if tensor.is_floating_point() else 0
        for length in reversed(tensor.shape):
            number = [number] * length
        return number

    monkeypatch.setattr(FakeTensor, "tolist", zeros)
    monkeypatch.setattr(FakeTensor, "__float__", lambda tensor: 0.0, raising=False)
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()):
        yield


def fake_model(config: PretrainConfig) -> Any:
    with CUDA:
        model = llama_config(config.model).build()
    with torch.no_grad():
        model.init_weights(buffer_device=CUDA)
    return model


CURRICULA = (
    "none", "all", "rotational", "rotational_alone", "rotational_pair", "gradual", "distilled", "distilled_read_only",
    "alone_then_distilled", "four_then_distilled",
)  # fmt: skip
DROPOUT = ("none", "exp_02", "linear_decreasing")
SIZE = [
    "model.dim=64",
    "model.n_layers=6",
    "model.n_heads=4",
    "model.n_kv_heads=2",
    "model.ffn_dim=96",
    "train.seq_len=32",
]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("sampling", ["bernoulli", "stratified"])
@pytest.mark.parametrize(("curriculum", "dropout"), list(itertools.product(CURRICULA, DROPOUT)))
def test_a_step_of_training(curriculum: str, dropout: str, sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [f"early_exit={curriculum}", f"layer_dropout={dropout}", f"layer_dropout.sampling={sampling}"]
    config = compose_config(*SIZE, *overrides, "train.steps=100", "train.precision=bf16", "train.loss_chunk_tokens=48")
    trainer = a_trainer(config)
    monkeypatch.setattr(torch.Tensor, "backward", lambda self: None)
    for step in (1, 2, 60):
        trainer.step, trainer.micro_batch = step, 0
        trainer.weights = exit_weights(config.early_exit, step - 1, config.model.n_layers, config.train.steps)
        tokens = torch.zeros(8, 32, dtype=torch.int64)  # from the loader, on the CPU
        loss = trainer.accumulate([({"input": tokens}, tokens.clone())], torch.tensor(8 * 32, device=CUDA))
        assert loss.device == CUDA
        assert {value.device for value in seen(trainer)} == {CUDA}


def seen(trainer: LayerSkipTrainer) -> list[torch.Tensor]:
    return trainer.metrics_processor.added  # type: ignore[attr-defined,no-any-return]


def a_trainer(config: PretrainConfig) -> LayerSkipTrainer:
    """What forward_backward_step needs of a trainer; its loss has no backward."""
    trainer: Any = object.__new__(LayerSkipTrainer)
    model = fake_model(config)
    model._skip_lm_head = True
    loss = EarlyExitLoss.Config(chunk_tokens=config.train.loss_chunk_tokens).build()
    loss.set_lm_head(model.lm_head)

    def forward_only(states: torch.Tensor, *rest: Any, **options: Any) -> Any:
        assert states.requires_grad
        with torch.no_grad():
            return loss(states.detach(), *rest, **options)

    added: list[torch.Tensor] = []
    trainer.recipe, trainer.device, trainer.model_parts = config, CUDA, [model]
    trainer.n_layers, trainer.total_steps = config.model.n_layers, config.train.steps
    trainer.loss_fn = forward_only
    trainer.train_context = lambda: torch.autocast("cuda", torch.bfloat16)
    trainer.parallel_dims = SimpleNamespace(cp_enabled=False)
    trainer.post_dataloading_process = lambda inputs, labels: (inputs["input"], labels, {})
    trainer.metrics_processor = SimpleNamespace(added=added, add=lambda layers, parts: added.extend(parts.values()))
    return trainer  # type: ignore[no-any-return]


@pytest.mark.usefixtures("fake")
def test_validation_at_every_exit() -> None:
    config = compose_config(*SIZE, "train.precision=bf16")
    model = fake_model(config).eval()
    model._skip_lm_head = True
    tokens = torch.zeros(2, 32, dtype=torch.int64)  # from the loader, on the CPU
    token_bytes = torch.ones(config.model.vocab_size, dtype=torch.int64, device=CUDA)
    with torch.autocast("cuda", torch.bfloat16):
        sums = exit_sums(model, model.lm_head, [(tokens, tokens)], (0, 2, 5), token_bytes, chunk_tokens=48)
    assert (sums.shape, sums.device) == ((3 * 3 + 2,), CUDA)


POLICIES: dict[str, Policy] = {
    "autoregressive": Autoregressive(),
    "early exit": EarlyExit(2),
    "self-speculative": SelfSpeculative(2, 3),
    "recomputed": SelfSpeculative(2, 3, False),
    "prompt lookup": PromptLookup(3),
    "draft model": DraftModel(2, 3),
    "confidence": ConfidenceStop(2, 3),
    "dynamic": DynamicExit(),
}
SAMPLING = {
    "greedy": SamplingOptions(),
    "sampled": SamplingOptions(temperature=0.7, top_k=20, top_p=0.9, min_p=0.01, repetition_penalty=1.1),
}


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("batch_size", "dtype"),
    [(1, torch.bfloat16), (3, torch.bfloat16), (1, torch.float32)],
    ids=["one", "three", "fp32"],
)
@pytest.mark.parametrize("sampling", SAMPLING.values(), ids=SAMPLING.keys())
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_decoding(policy: Policy, sampling: SamplingOptions, batch_size: int, dtype: torch.dtype) -> None:
    size = tiny_model(n_layers=4, n_heads=4, n_kv_heads=2)
    weights = {name: weight.to(CUDA) for name, weight in our_model(size).state_dict().items()}
    model = InferenceLlama(size, weights, dtype=dtype, device=CUDA)
    engine = Engine(model, 32, batch_size)
    requests = [Request([1, 2, 3, 4][: 2 + i], StopRule(max_new_tokens=6), sampling) for i in range(batch_size + 1)]
    texts: dict[int, int] = {}
    for rounds in engine.generate_all(requests, policy):
        for number, round_ in rounds:
            texts[number] = texts.get(number, 0) + len(round_.tokens)
    assert texts == dict.fromkeys(range(batch_size + 1), 6)
