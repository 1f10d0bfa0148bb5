"""Autotune: its replay against the engine itself, the lines between passes, and the command with what it leaves."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from evaluation import record, speculative
from hydra import compose, initialize_config_module
from test_decoding import tiny
from test_rows import typed_rows

from conf.strict import ConfigError, convert, register_schema
from eval.autotune import autotune
from eval.config import DraftPolicy, GenerateConfig
from eval.engine.checkpoint import open_checkpoint
from eval.engine.decoding import Engine
from eval.engine.policy import MOST_DRAFTS, Autoregressive, ConfidenceStop, DynamicExit, SelfSpeculative
from eval.engine.sampling import Sampler
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from eval.measure.plan import plan_of
from eval.measure.timing import PassTimes
from eval.policies import choose_policy
from eval.results.recommend import recommend
from eval.tuning import calibration
from eval.tuning.calibration import Calibration, Text, chances_by_exit
from eval.tuning.config import AutotuneConfig
from eval.tuning.prediction import candidates, passes_of, predictions
from models.kernels.matrix import Int8Matrix
from models.speculation import expected_accepted, replayed_rounds
from models.storage.recommended import recommended

register_schema("autotune", AutotuneConfig)
PASSES = PassTimes(1.0, 18.0, 1.0, 3.0, 1.0, 17.0)


def test_the_replay_counts_the_rounds_of_the_engine() -> None:
    model, rng = tiny(), random.Random(5)
    engine, sampler = Engine(model), Sampler(SamplingOptions(), model.device)
    accepted = 0
    for _ in range(20):
        prompt, n = [rng.randrange(24) for _ in range(rng.randrange(1, 20))], rng.randrange(1, 50)
        stop = StopRule(max_new_tokens=n)
        text = [t for r in engine.generate(prompt, Autoregressive(), stop) for t in r.tokens]
        chances = chances_by_exit(engine, sampler, prompt, text)
        for e in range(1, 5):
            d = rng.randrange(1, 9)
            rounds = list(engine.generate(prompt, SelfSpeculative(e, d), stop))[1:]
            drafting = [r for r in rounds if r.n_drafted]
            counted = len(drafting), sum(r.n_drafted for r in drafting), len(rounds) - len(drafting)
            assert replayed_rounds(chances[e], d) == pytest.approx(counted)
            accepted += sum(r.n_accepted for r in rounds)
    assert accepted > 100


def test_the_replay_of_one_chance_is_the_formula() -> None:
    for a in (0.0, 0.5, 0.9, 1.0):
        for d in (1, 3, 8):
            n = 4000
            rounds, drafted, _ = replayed_rounds([a] * n, d)
            assert n / rounds == pytest.approx(1 + expected_accepted(a, d), rel=0.01)
            assert drafted / rounds == pytest.approx(d, rel=0.01)
    assert replayed_rounds([], 3) == (0, 0, 0)
    assert replayed_rounds([1.0], 3) == (0, 0, 1)
    # Two tokens to write and one draft, accepted in half of the cases: one round, or a round and a plain token.
    assert replayed_rounds([0.5, 0.5], 3) == (1, 1, 0.5)


def test_times_lie_on_lines_between_those_measured() -> None:
    def times(draft: float, verify: float) -> PassTimes:
        return PASSES._replace(draft=draft, last_draft=draft - 1, verify=verify)

    measured = {(1, 2): times(3, 30), (1, 6): times(3, 38), (9, 2): times(11, 14), (9, 6): times(11, 18)}
    found = passes_of(measured, 5, 4)
    assert (found.draft, found.last_draft, found.verify) == pytest.approx((7, 6, 25))
    assert passes_of(measured, 1, 6) == measured[1, 6]


def test_the_predicted_best_is_the_best_of_the_replay() -> None:
    # Exit 2 is right for ever, exit 1 never, exit 3 in every other token.
    chances = {1: [0.0] * 41, 2: [1.0] * 41, 3: [1.0, 0.0] * 20 + [1.0]}
    measured = {(e, d): PASSES._replace(draft=2 + e, last_draft=e, verify=18 - e) for e in (1, 3) for d in (1, 12)}
    seen = Calibration([Text(5, 9.0, 1.0, chances)], measured)
    found = predictions(seen, 4)
    best = {(p.exit_layer, p.num_speculations): p for p in found}
    assert len(found) == 36
    assert found[0].exit_layer == 2
    assert best[2, 4].acceptance_rate == 1.0
    assert best[1, 4].acceptance_rate == 0.0
    # 41 tokens, 5 a round, one over: 8 rounds of 4 * 4 + 2 + 16 and a plain one, beside 41 plain ones.
    assert best[2, 4].speedup == pytest.approx((1 + 41 * 18) / (1 + 8 * 34 + 18))
    assert seen.acceptance(3)[:2] == pytest.approx([21 / 41, 0.0])
    policies = candidates(found, 2, list(DraftPolicy))
    first = [SelfSpeculative(p.exit_layer, p.num_speculations) for p in found[:2]]
    assert policies == [Autoregressive(), *first, ConfidenceStop(2, 12), DynamicExit()]
    assert candidates(found, 1, [DraftPolicy.fixed]) == [Autoregressive(), first[0]]


def test_beside_a_policy_without_numbers_stand_the_best_fixed_ones(tmp_path: Path) -> None:
    dynamic = speculative(exit_layer=0, num_speculations=0, policy="dynamic", seconds=3.0)
    rows = typed_rows([record(), speculative(), speculative(exit_layer=3, seconds=5.0), dynamic])
    recommend(rows, tmp_path / "recommended.json")
    found = recommended(tmp_path)
    assert found is not None
    assert (found.policy, found.exit_layer, found.num_speculations) == ("dynamic", 2, 3)
    assert found.speedup == pytest.approx(8 / 3)
    with pytest.raises(ConfigError, match="measure fixed settings too"):
        recommend([rows[0], rows[-1]], tmp_path / "recommended.json")


def call(*overrides: str) -> list[dict[str, Any]]:
    with initialize_config_module("conf", version_base="1.3"):
        raw = compose("autotune", list(overrides))
    return [row.as_json() for row in autotune(raw)]


def test_the_calibrated_model_is_the_one_that_is_measured(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"checkpoint={trained}", *SMALL, f"output={tmp_path}/a.json", "machine.weights=int8"]
    with initialize_config_module("conf", version_base="1.3"):
        config = convert(compose("autotune", keys), AutotuneConfig)
    engines = list[Engine]()
    monkeypatch.setattr(calibration, "calibrate", lambda engine, *_: engines.append(engine))
    calibration.calibrated(plan_of(config.benchmark(str(config.output)), open_checkpoint(trained)))
    assert isinstance(engines[0].model.head, Int8Matrix)
    assert engines[0].cache.max_len == 8 + 16 + MOST_DRAFTS + 1


SMALL = ["task.n_samples=2", "task.prompt_tokens=8", "task.max_new_tokens=16", "candidates=2", "repeats=1"]


def test_the_command_writes_what_decoding_picks_up(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommended(trained) is None
    try:
        rows = call(f"checkpoint={trained}", *SMALL, f"output={tmp_path}/a.json", "machine.dtype=float64")
        assert [(r["mode"], r["policy"]) for r in rows] == [
            ("autoregressive", None),
            *[("self_speculative", p) for p in (None, None, "confidence", "dynamic")],
        ]
        assert all(r["identical_share"] == 1 for r in rows)
        found = recommended(trained)
        assert found is not None
        best = max(rows[1:], key=lambda r: r["speedup"])
        assert (found.policy, found.speedup) == (best["policy"] or "fixed", best["speedup"])
        chosen = choose_policy(
            GenerateConfig(checkpoint=str(trained), sampling=SamplingOptions()), open_checkpoint(trained)
        )
        expected = {
            None: SelfSpeculative(best["exit_layer"], best["num_speculations"]),
            "confidence": ConfidenceStop(best["exit_layer"], best["num_speculations"]),
            "dynamic": DynamicExit(),
        }[best["policy"]]
        assert chosen.policy == (expected if best["speedup"] > 1 else Autoregressive())
    finally:
        (trained / "recommended.json").unlink(missing_ok=True)
    said, content = capsys.readouterr().out, json.loads((tmp_path / "a.json").read_text())
    assert "predicted" in said
    assert len(content["predicted"]) == 3 * 12
    assert content["measured"] == json.loads(json.dumps(rows))
    assert set(content["acceptance_by_position"]) == {"1", "2", "3"}
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    ("override", "message"),
    [("candidates=0", "candidates=0: must be at least 1"), ("policies=[dynamic]", "policies: must have fixed")],
)
def test_what_cannot_be_tuned(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call("checkpoint=x", override)
