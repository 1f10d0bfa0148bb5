"""The check of the decoders passes right ones, and finds each kind of broken one at the right token."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from evaluation import Bytes
from hydra import compose, initialize_config_module
from test_decoding import CPU, decode, tokens
from test_parity_hf import our_model

from conf.strict import ConfigError, register_schema
from eval.correctness import correctness
from eval.engine.agreement import NEAR_TIE, first_difference, logits_after, near_tie_bound, preferences, step
from eval.engine.decoding import Engine
from eval.engine.passes import Kind, Places
from eval.engine.policy import Autoregressive, SelfSpeculative
from eval.engine.rows import Round
from eval.engine.stopping import StopRule
from eval.exactness.correctness_config import CorrectnessConfig, exits_to_check
from eval.exactness.divergence import Compared, bound_of, compare_decoders
from eval.exactness.report import divergence_lines
from eval.measure.contest import Run, engine_run
from eval.measure.timing import Timed
from eval.setting import Setting
from eval.tasks.task import Sample
from models.inference import InferenceLlama

register_schema("correctness", CorrectnessConfig)
PROMPT, N = [3, 1, 4, 1, 5], 30
STOP = StopRule(max_new_tokens=N)
PLAIN, FAST = Setting.of(Autoregressive(), 5), Setting.of(SelfSpeculative(2, 4), 5)


def attentive(dtype: torch.dtype = torch.float64) -> InferenceLlama:
    """A model that looks closely at what stands before, so that a cache that is wrong changes its text."""
    weights = our_model(size := tiny_model(n_layers=5, vocab_size=24)).state_dict()
    for name in weights:
        if name.endswith("w2.weight"):
            weights[name] = weights[name] * (8 if ".0." in name else 2)
        if name.endswith("wo.weight"):
            weights[name] = weights[name] * (24 if ".0." in name else 6)
        if name.endswith(("wq.weight", "wk.weight")):
            weights[name] = weights[name] * 20
    return InferenceLlama(size, weights, dtype=dtype, device=CPU)


def compared(model: InferenceLlama, fast: Run, autoregressive: Run | None = None) -> list[Compared]:
    tokenizer: Any = Bytes()
    runs = {PLAIN: autoregressive or engine_run(Engine(model), Autoregressive()), FAST: fast}
    return compare_decoders(model, tokenizer, runs, [Sample(id="s", prompt="", tokens=PROMPT)], STOP)


def writes(text: list[int]) -> Run:
    return lambda _: [Timed(text, [], 1.0, 1.0, [])]


def plain_text(model: InferenceLlama) -> list[int]:
    return tokens(decode(model, Autoregressive(), PROMPT, N))


def test_right_decoders_pass() -> None:
    model = attentive()
    found = compared(model, engine_run(Engine(model), SelfSpeculative(2, 4)))
    assert [(c.decoder, c.n_tokens, c.divergences) for c in found] == [(PLAIN, N, []), (FAST, N, [])]


def test_preferences_are_those_of_pass_after_pass() -> None:
    model = attentive()
    text = plain_text(model)
    assert preferences(model, PROMPT, text).lost.abs().max() < 1e-9
    text[7] = (text[7] + 1) % 24
    logits = logits_after(model, [*PROMPT, *text[:7]])
    assert preferences(model, PROMPT, text).lost[7].item() == pytest.approx((logits.max() - logits[text[7]]).item())


def test_a_wrong_token_is_named_with_its_logits() -> None:
    model = attentive()
    text = plain_text(model)
    wrong = [*text[:11], (text[11] + 1) % 24, *text[12:]]
    _, found = compared(model, writes(wrong))
    (divergence,) = found.divergences
    logits = logits_after(model, [*PROMPT, *text[:11]])
    top = logits.topk(2)
    assert (divergence.sample, divergence.decoder, divergence.position, divergence.against) == ("s", FAST, 11, "plain")
    assert divergence.got is not None
    assert divergence.expected is not None
    assert (divergence.got.id, divergence.expected.id) == (wrong[11], text[11])
    assert divergence.got.logit == logits[wrong[11]].item()
    assert [c.id for c in divergence.top] == top.indices.tolist()
    assert [c.logit for c in divergence.top] == top.values.tolist()
    assert divergence.gap == (logits.max() - logits[wrong[11]]).item()
    assert 1e-15 < divergence.bound < 1e-12, "64 steps of float64 at logits of this size"
    assert not divergence.near_tie
    lines = divergence_lines(divergence)
    assert lines.startswith(
        "UNEXPLAINED: self-speculative E=2 d=4 differs from autoregressive decoding: sample s, token 12"
    )
    for part in (f"{wrong[11]} ", f"{text[11]} ", f"{top.values[1].item():.6g}", f">= {divergence.bound:g}"):
        assert part in lines


class WrongVerification(Engine):
    """Verifies each token with the state of the one before."""

    def verify(self, states: torch.Tensor, places: Places, exit_layer: int, width: int, *_: Any) -> torch.Tensor:
        return self.passes(Kind(exit_layer, self.model.size.n_layers), states.roll(1, 1), places, width)[1]


class KeepsRejected(Engine):
    """Leaves one rejected token in the cache."""

    def _round(self, *arguments: Any) -> list[Round]:
        [round_] = super()._round(*arguments)
        self.cache.lengths[0] += bool(round_.rejected)
        return [round_]


class Forgets(Engine):
    """Does not take back keys and values of the layers above the exit, which it never wrote: zeros them."""

    def _round(self, *arguments: Any) -> list[Round]:
        [round_] = super()._round(*arguments)
        self.cache.kv[-1, :, :, self.cache.lengths[0] - 1] = 0
        return [round_]


class AcceptsAll(Engine):
    """Takes the first draft as it is."""

    def _round(self, *arguments: Any) -> list[Round]:
        [round_] = super()._round(*arguments)
        if round_.rejected:
            return [round_._replace(tokens=[*round_.tokens[:-1], round_.rejected[0]])]
        return [round_]


@pytest.mark.parametrize("engine", [WrongVerification, KeepsRejected, Forgets, AcceptsAll])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_broken_engines_are_found_at_their_first_wrong_token(engine: type[Engine], dtype: torch.dtype) -> None:
    model = attentive(dtype)
    broken = engine(model)
    text = tokens(list(broken.generate(PROMPT, SelfSpeculative(2, 4), STOP)))
    autoregressive = plain_text(model)
    at = first_difference(text, autoregressive)
    assert at is not None
    first, found = compared(model, engine_run(engine(model), SelfSpeculative(2, 4)))
    assert not first.divergences
    (divergence,) = found.divergences
    assert not divergence.near_tie
    assert divergence.position == at
    assert divergence.got is not None
    assert divergence.expected is not None
    assert (divergence.got.id, divergence.expected.id) == (text[at], autoregressive[at])
    assert divergence.top[0].id == autoregressive[at]


def test_a_mistake_that_all_decoders_share_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token at a time is rotated as if it stood elsewhere; the check's single pass is not."""
    model = attentive()
    right = plain_text(model)
    rotation = model._rotation_at

    def shifted(at: torch.Tensor, end: int) -> torch.Tensor:
        return rotation(at + 9, end + 9) if len(at) == 1 and end <= 50 else rotation(at, end)

    monkeypatch.setattr(model, "_rotation_at", shifted)
    first, _ = compared(model, engine_run(Engine(model), SelfSpeculative(2, 4)))
    (divergence,) = first.divergences
    assert (divergence.against, divergence.near_tie, divergence.decoder) == ("one pass", False, PLAIN)
    assert divergence.expected is not None
    assert divergence.expected.id == divergence.top[0].id
    assert divergence.position == first_difference(plain_text(model), right)


def test_a_text_that_ends_too_soon_is_no_near_tie() -> None:
    model = attentive()
    _, found = compared(model, writes(plain_text(model)[:9]))
    (divergence,) = found.divergences
    assert (divergence.position, divergence.got, divergence.near_tie) == (9, None, False)
    assert "sample s, after 9 tokens, where one of them ends" in divergence_lines(divergence)
    assert "it writes  nothing more; autoregressive decoding" in divergence_lines(divergence)


def with_a_twin(model: InferenceLlama, token: int, twin: int) -> InferenceLlama:
    model.head.weight[twin] = model.head.weight[token]
    return model


def test_near_ties_are_told_and_what_follows_them_is_checked() -> None:
    model = attentive()
    text = plain_text(model)
    at = next(i for i in range(3, N) if text[i] not in text[:i])
    twin = max(t for t in range(24) if t not in text)  # of equal logits the first is taken
    model = with_a_twin(model, text[at], twin)
    text = plain_text(model)
    assert text[at] != twin
    other = [*text[:at], twin]
    while len(other) < N:  # goes on as the full model would
        other.append(int(logits_after(model, [*PROMPT, *other]).argmax()))
    _, found = compared(model, writes(other))
    (tie,) = found.divergences
    assert (tie.near_tie, tie.position, tie.gap) == (True, at, 0)
    assert {tie.top[0].id, tie.top[1].id} == {text[at], twin}
    worst = int(logits_after(model, [*PROMPT, *other[: at + 2]]).argmin())
    _, found = compared(model, writes([*other[: at + 2], worst, *other[at + 3 :]]))
    tie, after = found.divergences
    assert tie.near_tie
    assert (after.near_tie, after.position, after.against) == (False, at + 2, "one pass")
    assert after.got is not None
    assert after.got.id == worst


def test_logits_that_are_no_numbers_are_no_near_ties() -> None:
    model = attentive()
    model.head.weight[:, 3] = float("nan")
    for one in compared(model, engine_run(Engine(model), SelfSpeculative(2, 4)))[:1]:
        (divergence,) = one.divergences
        assert not divergence.near_tie


def test_bounds() -> None:
    size = torch.tensor([1.0, 20.0, 0.0, 1000.0])
    assert step(size, torch.bfloat16).tolist()[:2] == [2**-7, 0.125]
    assert step(size, torch.float32).tolist() == pytest.approx([2**-23, 2**-19, 0, 2**-14])
    assert step(size, torch.float64)[2] > 0, "of logits that are all 0 there is a near-tie, too"
    twenty = size[1]
    assert near_tie_bound(twenty, torch.bfloat16) == NEAR_TIE[torch.bfloat16] * 0.125
    assert bound_of(PLAIN, twenty, torch.float64, 3) == 3 * 2**-48
    theirs = Setting("transformers", 4)
    assert bound_of(theirs, twenty, torch.float64) == near_tie_bound(twenty, torch.float32)
    assert bound_of(theirs, twenty, torch.bfloat16) == near_tie_bound(twenty, torch.bfloat16)
    assert exits_to_check(16) == [1, 4, 8, 15]
    assert exits_to_check(2) == [1]


def call(*overrides: str) -> None:
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose("correctness", list(overrides))
    correctness(raw)


SMALL = ["task.n_samples=2", "task.prompt_tokens=8", "task.max_new_tokens=12", "num_speculations=[1,3]"]


@pytest.mark.parametrize(("dtype", "batch_size"), [("float64", 1), ("float64", 2), ("bfloat16", 1)])
def test_from_a_checkpoint_to_a_verdict(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], dtype: str, batch_size: int
) -> None:
    output = tmp_path / "c.json"
    machine = [f"machine.dtype={dtype}", f"batch_size={batch_size}"]
    call(f"checkpoint={trained}", *SMALL, *machine, "transformers=true", f"output={output}")
    found = json.loads(output.read_text())
    assert found["batch_size"] == batch_size
    assert found["passed"] is True
    modes = [(d["mode"], d["exit_states"]) for d in found["decoders"]]
    assert modes[:3] == [("autoregressive", None), ("early_exit", None), ("self_speculative", "reuse")]
    assert modes[-1] == ("transformers", None)
    # E 1, 2, 3; d 1, 3; reused, recomputed and ended by confidence; one that chooses; transformers.
    assert len(modes) == 2 + 3 * 2 * 3 + 1 + 1
    assert [d["policy"] for d in found["decoders"] if d["policy"]] == ["confidence"] * 6 + ["dynamic"]
    for decoder in found["decoders"]:
        assert decoder["identical"] + decoder["near_ties"] == decoder["n_samples"] == 2
        assert decoder["n_tokens"] == 24
    out = capsys.readouterr().out
    steps = {"float64": "less than 64 steps of float64", "bfloat16": "less than 8 steps of bfloat16"}[dtype]
    assert steps in " ".join(out.split())


def status(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    """Of `python -m eval.correctness`."""
    monkeypatch.setattr(sys, "argv", ["eval.correctness", *overrides])
    monkeypatch.delitem(sys.modules, "eval.correctness", raising=False)
    codes = [0]
    monkeypatch.setattr(sys, "exit", codes.append)
    runpy.run_module("eval.correctness", run_name="__main__")
    return codes[-1]


def test_a_mistake_of_batches_alone_is_found(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of a batch see their prompt's first token alone."""

    def first_alone(model: InferenceLlama, positions: torch.Tensor, end: int) -> torch.Tensor:
        return torch.full((len(positions), 1, 1, end), -torch.inf).double().index_fill(3, torch.tensor(0), 0.0)

    monkeypatch.setattr(InferenceLlama, "_mask_of_rows", first_alone)
    fine = [f"checkpoint={trained}", *SMALL, "machine.dtype=float64", f"output={tmp_path / 'c.json'}", "show=1"]
    assert status(monkeypatch, *fine) == 0
    assert status(monkeypatch, *fine, "batch_size=2") == 1
    assert "and not by rounding" in capsys.readouterr().err


def test_exit_status(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "c.json"
    fine = [f"checkpoint={trained}", *SMALL, "machine.dtype=float64", f"output={output}"]
    assert status(monkeypatch, *fine) == 0
    assert status(monkeypatch, *fine, "exit_layers=[4]") == 2
    assert "error: exit_layers=4: must lie in 1..3" in capsys.readouterr().err
    monkeypatch.setattr(Engine, "verify", WrongVerification.verify)
    assert status(monkeypatch, *fine, "show=1") == 1
    out, error = capsys.readouterr()
    found = json.loads(output.read_text())
    wrong = [d for d in found["divergences"] if not d["near_tie"]]
    assert found["passed"] is False
    assert wrong
    assert {d["decoder"]["exit_states"] for d in wrong} == {"reuse"}, "recomputing has no such verification"
    assert f"error: decoders differ: {len(wrong)} times, and not by rounding" in error
    assert out.count("UNEXPLAINED:") == 1
    assert status(monkeypatch, *fine, "near_tie=1e18") == 0, "the bound is what tells them apart"
    assert f"{len(found['divergences']) - 1} more differences are in {output}" in out


BAD = {
    ("num_speculations=[0]",): r"num_speculations=0: must be at least 1",
    ("exit_layers=[0]",): r"exit_layers=0: must lie in 1\.\.3",
    ("exit_states=[]",): r"exit_states: give reuse, recompute or both",
    ("output=x.txt",): r"output=x\.txt: must end in \.json",
    ("sampled=true", "sampling.temperature=0"): r"sampling.temperature=0.0: draws nothing",
    ("near_tie=-1",): r"near_tie=-1.0: must be at least 0",
    ("draws=0",): r"draws=0: must be at least 1",
}


@pytest.mark.parametrize(("overrides", "message"), BAD.items(), ids=[" ".join(a) for a in BAD])
def test_mistakes_are_told(trained: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(f"checkpoint={trained}", *SMALL, *overrides)
