"""Self-distillation: the loss and its gradient against whole logits in float64, its schedule and weights, refusals."""

import pytest
import torch
import torch.nn.functional as F
from conftest import compose_config, tiny_model
from live_memory import LiveMemory
from torch import nn
from torchtitan.config import CompileConfig

from conf.strict import ConfigError
from models.spec import llama_config
from train.recipe import early_exit_loss
from train.recipe.chunk_losses import SoftTargets, soft_targets
from train.recipe.curriculum import Curriculum, EarlyExitConfig
from train.recipe.distillation import DistillationConfig, DistillationWeights, Otherwise, strength_at
from train.recipe.early_exit_loss import EarlyExitLoss
from train.recipe.exit_weights import exit_weights, first_step_without_weight
from train.recipe.soft_targets import soft_loss, teacher_of

V, D, B, T = 23, 8, 3, 7


def naive(
    states: torch.Tensor, labels: torch.Tensor, head: torch.Tensor, weights: list[float], soft: SoftTargets
) -> torch.Tensor:
    """The sum over tokens that have a label, from whole logits."""
    log_q = [F.linear(x, head).log_softmax(-1) for x in states.view(len(weights), B * T, D)]
    tau, valid = soft.temperature, labels.flatten() != -100
    p = (log_q[-1].detach() / tau).softmax(-1)
    teaches = torch.ones(B) if soft.teaching_rows is None else soft.teaching_rows
    b = soft.kl_share * teaches.double().repeat_interleave(T)
    total = torch.zeros((), dtype=torch.float64)
    for x, (log_q_x, weight) in enumerate(zip(log_q, weights, strict=True)):
        nats = F.nll_loss(log_q_x, labels.flatten(), ignore_index=-100, reduction="none")
        divergence = F.kl_div((log_q_x / tau).log_softmax(-1), p, reduction="none").sum(-1)
        last = x == len(weights) - 1
        total = total + weight * (nats if last else (1 - b) * nats + b * tau**2 * divergence)[valid].sum()
    return total


@pytest.mark.parametrize("chunk_tokens", [1, 4, 21, 1000])
@pytest.mark.parametrize(("kl_share", "temperature"), [(1.0, 1.0), (0.3, 1.0), (1.0, 2.0), (0.6, 0.5)])
@pytest.mark.parametrize("case", ["two", "four", "ignored", "some rows teach"])
def test_against_whole_logits_in_float64(
    monkeypatch: pytest.MonkeyPatch, chunk_tokens: int, kl_share: float, temperature: float, case: str
) -> None:
    monkeypatch.setattr(early_exit_loss, "FULL_HEAD", 5)
    torch.manual_seed(chunk_tokens)
    weights = [0.1, 0.0, 0.2, 1.0] if case == "four" else [0.3, 1.0]
    head, labels = nn.Linear(D, V, bias=False), torch.randint(V, (B, T))
    base = (3 * torch.randn(len(weights) * B, T, D)).requires_grad_()
    rows = None
    if case != "two":
        labels[torch.rand(B, T) < 0.4] = -100
    if case == "some rows teach":
        rows = torch.tensor([True, False, True])
    soft = SoftTargets(kl_share, temperature, rows)

    exact = base.detach().double().requires_grad_(), head.weight.detach().double().requires_grad_()
    total = naive(exact[0] * 2, labels, exact[1], weights, soft) / 17
    wanted = torch.autograd.grad(total, exact)

    loss_fn = EarlyExitLoss.Config(chunk_tokens=chunk_tokens).build()
    loss_fn.set_lm_head(head)
    loss, _ = loss_fn(base * 2, labels, torch.tensor(17), weights=weights, soft_targets=soft)
    loss.backward()
    torch.testing.assert_close(loss.double(), total.detach(), rtol=1e-5, atol=1e-6)
    for found, expected in zip((base.grad, head.weight.grad), wanted, strict=True):
        assert found is not None
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_gradient_that_is_written_out(temperature: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, V, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, V - 1, -100, 3, 3])
    teacher = teacher_of(torch.randn(5, V, dtype=torch.float64).log_softmax(-1), temperature, None)
    b = torch.tensor([[1.0], [0.5], [0.5], [0.0], [0.25]], dtype=torch.float64)
    soft_loss(logits, labels, teacher, b, temperature, None).objective.backward()
    log_q = logits.log_softmax(-1)
    nats = F.nll_loss(log_q, labels, ignore_index=-100, reduction="none")
    divergence = F.kl_div((logits / temperature).log_softmax(-1), teacher.probabilities, reduction="none").sum(-1)
    exact = ((1 - b[:, 0]) * nats + b[:, 0] * temperature**2 * divergence)[labels != -100].sum()
    torch.testing.assert_close(logits.grad, torch.autograd.grad(exact, logits)[0])


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_compiled(temperature: float) -> None:
    torch.manual_seed(1)
    head, labels = nn.Linear(D, V, bias=False), torch.randint(V, (B, T))
    labels[0, :3] = -100
    states = 3 * torch.randn(3 * B, T, D)
    soft = SoftTargets(0.7, temperature, torch.tensor([True, False, True]))
    found = []
    for compiled in (False, True):
        loss_fn = EarlyExitLoss.Config(chunk_tokens=10).build(compile_config=CompileConfig(enable=compiled))
        loss_fn.set_lm_head(head)
        head.weight.grad, x = None, states.clone().requires_grad_()
        loss, parts = loss_fn(x * 1, labels, torch.tensor(17), weights=(0.3, 0.2, 1.0), soft_targets=soft)
        loss.backward()
        found.append([loss.detach(), x.grad, head.weight.grad, *parts.values()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("temperature", "tensors"), [(1.0, 4), (2.0, 5)])
def test_memory_of_a_chunk(temperature: float, tensors: int) -> None:
    """Tensors of [chunk, V] at a time; cross entropy alone needs three. So a teacher costs one, at tau = 1."""
    n_ids, n = 50_000, 64
    head, states = nn.Linear(4, n_ids, bias=False), torch.randn(2, 4 * n, 4, requires_grad=True)
    loss_fn = EarlyExitLoss.Config(chunk_tokens=n).build()
    loss_fn.set_lm_head(head)
    peaks = []
    for soft in (None, SoftTargets(0.5, temperature)):
        head.weight.grad = None
        with LiveMemory() as live:
            loss_fn(states * 1, torch.zeros(1, 4 * n, dtype=torch.int64), weights=(0.5, 1.0), soft_targets=soft)
        peaks.append(live.peak / (4 * n * n_ids))
    assert peaks == pytest.approx([3.2, tensors + 0.2], abs=0.2)


def test_a_read_only_head_learns_from_the_last_exit_alone() -> None:
    torch.manual_seed(3)
    model = llama_config(tiny_model()).build()
    model.init_states()
    model._skip_lm_head = True
    tokens, labels = torch.randint(96, (2, 16)), torch.randint(96, (2, 16))
    loss_fn = EarlyExitLoss.Config(chunk_tokens=10).build()
    loss_fn.set_lm_head(model.lm_head)

    def gradients(weights: dict[int, float], read_only: bool, soft: SoftTargets | None) -> dict[str, torch.Tensor]:
        model.zero_grad()
        states = model(tokens, exits=tuple(weights), read_only_norm=read_only)
        options = {"weights": tuple(weights.values()), "soft_targets": soft, "read_only_head": read_only}
        loss, _ = loss_fn(states, labels, torch.tensor(32), **options)
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    shared = ("norm.weight", "lm_head.weight")
    for soft in (None, SoftTargets(0.5, 1.0)):
        exits = {1: 0.3, 2: 0.2, 3: 1.0}
        alone, whole = gradients({3: 1.0}, False, None), gradients(exits, False, soft)
        found = gradients(exits, True, soft)
        for name, grad in found.items():
            torch.testing.assert_close(grad, (alone if name in shared else whole)[name], rtol=1e-4, atol=1e-7)
        assert not any(torch.allclose(whole[name], alone[name], rtol=1e-2) for name in shared)


def early_exit(
    curriculum: Curriculum = Curriculum.all, include_last_layer: bool = True, **options: object
) -> EarlyExitConfig:
    return EarlyExitConfig(
        curriculum=curriculum,
        e_scale=0.2,
        include_last_layer=include_last_layer,
        distillation=DistillationConfig(**{"strength": 0.5} | options),  # type: ignore[arg-type]
    )


def test_weights_by_hand() -> None:
    # l(l+1)/2 = 0, 1, 3 below the last of 4 layers; the last weighs 1.
    assert exit_weights(early_exit(), 0, 4, 10) == pytest.approx({1: 0.5 / 4, 2: 1.5 / 4, 3: 1.0})
    uniform = early_exit(weights=DistillationWeights.uniform)
    assert exit_weights(uniform, 0, 4, 10) == pytest.approx({0: 0.5 / 3, 1: 0.5 / 3, 2: 0.5 / 3, 3: 1.0})
    pair = early_exit(Curriculum.rotational)
    assert [exit_weights(pair, t, 4, 10) for t in range(4)] == [{3: 1.0}, {1: 0.5, 3: 1.0}, {2: 0.5, 3: 1.0}, {3: 1.0}]


def test_schedule_and_what_is_trained_otherwise() -> None:
    late = early_exit(begin=0.4)
    assert [strength_at(late.distillation, t, 10) for t in range(10)] == [0.0] * 4 + [0.5] * 6
    assert exit_weights(late, 3, 4, 10) == {3: 1.0}
    assert len(exit_weights(late, 4, 4, 10)) == 3
    early = early_exit(end=0.4, otherwise=Otherwise.paper)
    assert [strength_at(early.distillation, t, 10) for t in range(10)] == [0.5] * 4 + [0.0] * 6
    paper = EarlyExitConfig(curriculum=Curriculum.all, e_scale=0.2)
    assert exit_weights(early, 4, 4, 10) == exit_weights(paper, 4, 4, 10)


def test_one_exit_a_step_first_and_a_teacher_afterwards() -> None:
    config = early_exit(Curriculum.rotational, include_last_layer=False, begin=0.5, otherwise=Otherwise.paper)
    assert [exit_weights(config, t, 5, 12) for t in (1, 2, 3)] == [{1: 1.0}, {2: 1.0}, {3: 1.0}]
    assert [exit_weights(config, t, 5, 12) for t in (6, 7, 8)] == [{2: 0.5, 4: 1.0}, {3: 0.5, 4: 1.0}, {4: 1.0}]
    assert first_step_without_weight(config, 5, 12) is None


def test_nothing_but_the_last_layer_is_plain_cross_entropy() -> None:
    torch.manual_seed(2)
    head, states, labels = nn.Linear(D, V, bias=False), torch.randn(B, T, D), torch.randint(V, (B, T))
    loss_fn = EarlyExitLoss.Config(chunk_tokens=8).build()
    loss_fn.set_lm_head(head)
    loss, parts = loss_fn(states, labels, torch.tensor(B * T), soft_targets=SoftTargets(1.0, 1.0))
    torch.testing.assert_close(loss, F.cross_entropy(head(states).flatten(0, 1), labels.flatten()))
    assert "divergences" not in parts


def test_who_teaches() -> None:
    labels, kept = torch.zeros(3, 5, dtype=torch.int64), [None, torch.tensor([2]), torch.tensor([0, 2])]
    config = DistillationConfig(strength=0.3, end=0.5)
    soft = soft_targets(config, 0, 10, labels, kept)
    assert soft is not None
    assert soft.teaching_rows is None, "by default all rows"
    assert soft_targets(config, 5, 10, labels, kept) is None, "lambda(t) = 0"
    assert soft_targets(DistillationConfig(strength=0.3, kl_share=0.0), 0, 10, labels, kept) is None, "labels alone"
    config.teach_dropped_rows = False
    for rows, expected in (
        (kept, [True, False, True]),
        ([None] * 3, None),
        ([kept[0], kept[1], kept[1][:0]], [False] * 3),
    ):
        soft = soft_targets(config, 0, 10, labels, rows)
        assert soft is not None
        assert (None if soft.teaching_rows is None else soft.teaching_rows.tolist()) == expected


D_ = "early_exit.distillation."
BAD = {
    f"{D_}strength=-1": rf"{D_}strength=-1\.0: must be at least 0",
    f"{D_}strength=inf": rf"{D_}strength=inf: must be a finite number",
    f"{D_}kl_share=-0.1": rf"{D_}kl_share=-0\.1: must be at least 0",
    f"{D_}kl_share=1.5": rf"{D_}kl_share=1\.5: must be at most 1",
    f"{D_}temperature=0": rf"{D_}temperature=0\.0: must be above 0",
    f"{D_}begin=0.7 {D_}end=0.5": rf"{D_}begin=0\.7: must be at least 0 and below end=0\.5, at most 1",
    f"early_exit=none {D_}strength=0.1": rf"{D_}strength=0\.1: there is no exit to teach; .*early_exit=distilled",
    "early_exit.include_last_layer=false": rf"{D_}strength=1\.0: the last layer teaches.*include_last_layer=true",
    f"early_exit.include_last_layer=false {D_}begin=0.5": r"include_last_layer=true",
    "early_exit=rotational_alone early_exit.read_only_head=true": r"read_only_head=True: .*include_last_layer=true",
    "early_exit.gradient_cosine_every=0": r"early_exit\.gradient_cosine_every=0: must be at least 1",
}


@pytest.mark.parametrize(("overrides", "message"), BAD.items(), ids=BAD.keys())
def test_mistakes(overrides: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        compose_config("early_exit=distilled", *overrides.split())
    assert "\n" not in str(error.value)


def test_what_is_possible() -> None:
    config = compose_config("early_exit=distilled").early_exit
    assert (config.distillation.strength, config.distillation.kl_share, config.include_last_layer) == (1.0, 1.0, True)
    both = ["early_exit=rotational_alone", f"{D_}strength=0.3", f"{D_}begin=0.5", f"{D_}otherwise=paper"]
    assert not compose_config(*both).early_exit.include_last_layer
