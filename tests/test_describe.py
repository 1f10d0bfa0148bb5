"""train.describe: its numbers recomputed by hand, its picture, and mistakes told in one line."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import compose_config
from hydra import compose, initialize_config_module
from live_memory import LiveMemory
from torch._subclasses.fake_tensor import FakeTensorMode

from conf.strict import ConfigError, register_schema
from train.config import PretrainConfig, Recompute
from train.cost.describe_config import DescribeConfig
from train.cost.facts import break_even, facts_of, mean_weights, sampled_steps, tokens_per_second
from train.cost.memory import block_parameters, kept_inside, memory_per_gpu, n_parameters
from train.describe import describe
from train.titan import trainer_config

register_schema("describe", DescribeConfig)
ROOT = Path(__file__).parent.parent
# llama_debug: D = 64, L = 6, K = 32, F = 192, V = 4096.
BLOCK = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 192
PARAMETERS = 6 * (BLOCK + 2 * 64) + 2 * 4096 * 64 + 64
BLOCK_FLOPS, HEAD_FLOPS = 2 * (BLOCK + 64 * 256), 2 * 64 * 4096  # causal attention: 2 D T / 2


def say(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    with initialize_config_module("conf", version_base="1.3"):
        describe(compose("describe", list(overrides)))
    return capsys.readouterr().out


def run(*overrides: str, n_layers: int = 6, world_size: int = 1) -> PretrainConfig:
    size = ["model=llama_debug", f"model.n_layers={n_layers}", "train.precision=bf16"]
    return compose_config(*size, *overrides, world_size=world_size)


def test_parameters() -> None:
    size = run().model
    assert (block_parameters(size), n_parameters(size)) == (BLOCK + 128, PARAMETERS) == (49_280, 820_032)
    size.tie_embeddings = True
    assert n_parameters(size) == PARAMETERS - 4096 * 64


def hand_weights(t: int, n_layers: int, e_scale: float, period: int) -> list[float]:
    """e~(t, l) of the rotational curriculum, from equation 6."""
    e = [e_scale * layer * (layer + 1) / 2 for layer in range(n_layers)]
    e[-1] = n_layers - 1 + e_scale * (n_layers - 2) * (n_layers - 1) / 2
    on = [e[i] if (i - t) % period == 0 or i == n_layers - 1 else 0.0 for i in range(n_layers)]
    return [weight / sum(on) for weight in on]


@pytest.mark.parametrize(
    ("n_layers", "period", "total", "over_time"),
    [(6, 2, 20, "constant"), (6, 4, 21, "exponential"), (9, 8, 30, "decreasing"), (5, 3, 5003, "exponential")],
)
def test_flops_and_weights_are_means_over_all_steps(n_layers: int, period: int, total: int, over_time: str) -> None:
    config = run(
        "layer_dropout=exp",
        "layer_dropout.p_max=0.4",
        f"layer_dropout.time_schedule={over_time}",
        "early_exit=rotational",
        f"early_exit.rotation_period={period}",
        f"train.steps={total}",
        n_layers=n_layers,
    )
    flops, heads, weights = 0.0, 0, [0.0] * n_layers
    for t in range(total):
        in_time = {"constant": 1.0, "exponential": 2 ** (t / (total - 1)) - 1, "decreasing": 1 - t / (total - 1)}
        p = [0.4 * (2 ** (i / (n_layers - 1)) - 1) * in_time[over_time] for i in range(n_layers)]
        step = hand_weights(t, n_layers, 0.2, period)
        n_exits = sum(weight > 0 for weight in step)
        flops += 3 * (sum(1 - p_l for p_l in p) * BLOCK_FLOPS + n_exits * HEAD_FLOPS)
        heads += n_exits
        weights = [a + b for a, b in zip(weights, step, strict=True)]
    facts = facts_of(config, 1)
    exact = total <= 2000
    assert facts.flops.mean == pytest.approx(flops / total, rel=1e-12 if exact else 1e-4)
    assert facts.mean_exits == pytest.approx(heads / total, rel=1e-12 if exact else 1e-3)
    assert facts.flops.heads == pytest.approx(3 * facts.mean_exits * HEAD_FLOPS)
    assert facts.flops.plain == 3 * (n_layers * BLOCK_FLOPS + HEAD_FLOPS)
    assert facts.tokens == total * 16 * 256
    mean = mean_weights(config, sampled_steps(config))
    assert mean == pytest.approx([w / total for w in weights], rel=1e-9 if exact else 1e-2)
    assert sum(mean) == pytest.approx(1)


def test_recomputation_is_a_third_forward_of_the_blocks_alone() -> None:
    flops = facts_of(run("activation_checkpoint=full", "early_exit=all"), 1).flops
    assert flops.plain_executed - flops.plain == 6 * BLOCK_FLOPS
    assert flops.executed - flops.mean == 6 * BLOCK_FLOPS
    assert facts_of(run("early_exit=all"), 1).most_exits == 5  # e(0) = 0


def test_memory_by_hand() -> None:
    config = run("train.local_batch_size=2", "activation_checkpoint=selective", world_size=8)
    memory = memory_per_gpu(config, 8, 3)
    tokens, block, head = 2 * 256, BLOCK + 128, 4096 * 64
    assert (memory.parameters, memory.gradients, memory.optimizer) == (PARAMETERS / 2, PARAMETERS / 2, PARAMETERS)
    selective, none = 2 * (3 * 64 + 2 * 32 + 192) + 4 * 4, 2 * (5 * 64 + 2 * 32 + 4 * 192) + 4 * (4 + 2)
    assert memory.activations == 6 * tokens * (2 * 64 + selective)
    assert memory.exit_states == 3 * 3 * tokens * 2 * 64
    assert memory.head == (2 + 4) * head  # weight, and the gradient in fp32 that all chunks are added to
    assert memory.logits_chunk == tokens * 4096 * 12  # fewer than a chunk has
    assert memory.exit_gradient == 3 * tokens * 2 * 64
    assert memory.one_block == tokens * (none - selective + 2 * (2 * 192 + 2 * 64))
    assert memory.gathered == 2 * 2 * block + 2 * 64 * 192  # the block above had more activations than gradients
    assert memory.embedding == (2 * 2 + 4) * head
    assert memory.teacher_chunk == 0
    states, logits = tokens * 2 * 64, tokens * 4096 * 12
    assert memory.validation == 2 * head + 6 * states + 2 * block + logits
    always = 2 * PARAMETERS
    assert memory.in_loss == always + memory.activations + memory.exit_states + memory.head + memory.logits_chunk
    backward = memory.exit_gradient + memory.gathered + memory.one_block
    assert memory.in_backward == always + memory.activations + backward
    assert memory.peak == max(memory.in_loss, memory.in_backward, memory.in_validation)
    halves = memory_per_gpu(run("parallelism.replicate=2", world_size=8), 8, 1)
    assert halves.parameters == 4 * PARAMETERS / 4
    assert kept_inside(config.model, Recompute.full, 2) == 0


def test_memory_of_the_head_and_of_the_last_reduction() -> None:
    few = memory_per_gpu(run("train.local_batch_size=1", "train.loss_chunk_tokens=16"), 1, 1)
    assert few.logits_chunk == 4 * 4096 * 64  # less than the head's gradient on its way
    one = memory_per_gpu(run("train.local_batch_size=1"), 1, 1)
    assert few.head - one.head == 4 * 4096 * 64  # a gradient that is added to
    tied = memory_per_gpu(run("activation_checkpoint=full", "model.tie_embeddings=true"), 1, 1)
    untied = memory_per_gpu(run("activation_checkpoint=full"), 1, 1)
    # Nothing is reduced between the head and the last block, and the weight stays for the embedding.
    assert tied.gathered - untied.gathered == (4 + 2) * 4096 * 64
    exits = [memory_per_gpu(run(f"validation.exit_layers={layers}"), 1, 1) for layers in ([], [6])]
    assert exits[0].validation - exits[1].validation == 5 * 4096 * 2 * 64, "the states of each exit"


def test_memory_of_distillation_is_a_chunk_of_logits() -> None:
    plain, taught = (run("train.local_batch_size=2", f"early_exit={e}") for e in ("rotational_pair", "distilled"))
    with_teacher, without = memory_per_gpu(taught, 1, 2), memory_per_gpu(plain, 1, 2)
    assert with_teacher.teacher_chunk == 2 * 256 * 4096 * 4  # fewer tokens than a chunk has
    assert with_teacher.in_loss - without.in_loss == with_teacher.teacher_chunk
    assert memory_per_gpu(taught, 1, 1).teacher_chunk == 0, "nobody is taught"


def test_deadline_and_break_even() -> None:
    assert tokens_per_second(86_400_000, 2.0) == 500
    assert break_even(3e12, 1_000_000, 1.5) == pytest.approx(3e12 / (2e6 / 3))
    assert break_even(-1.0, 10, 2.0) == 0


def test_what_it_prints_and_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "deep" / "demo.png"
    overrides = ["model=llama_debug", "layer_dropout=exp", "early_exit=rotational", "train.steps=41"]
    overrides += ["early_exit.rotation_period=2", f"describe.output={picture}", "describe.speedup=2"]
    text = say(capsys, *overrides, "describe.world_size=4", "describe.deadline_days=1")
    assert "820,032 parameters" in text
    assert f"41 steps x 16 rows x 256 tokens = {41 * 16 * 256:,} tokens" in text
    assert "world size 4, 4 to a copy of the model; 4 rows a GPU at a time; bf16" in text
    rows = {int(line.split()[0]): line.split()[1:] for line in text.splitlines() if line[:10].strip().isdigit()}
    assert sorted(rows) == [1, 2, 3, 4, 5, 6]
    for t, column in ((0, 0), (10, 1), (40, 4)):
        for layer, weight in enumerate(hand_weights(t, 6, 0.2, 2)):
            cells = rows[layer + 1]
            assert cells[column] == f"{0.1 * (2 ** (layer / 5) - 1):.4f}"
            assert cells[5 + column] == (f"{weight:.4f}" if weight else "-")
    extra = facts_of(run("layer_dropout=exp", "early_exit=rotational", *overrides[3:5]), 1).flops
    spent = (extra.mean - extra.plain) * 41 * 4096
    assert f"{spent:.4g} FLOPs, paid back after {spent / 820_032:.4g} generated tokens" in text
    assert f"To be done in 1 days: {41 * 4096 / 86400:,.0f} tokens/s" in text
    # Embedding twice, head with norm once, each block twice unless all four rows skip it; 3/4 of it from others.
    dropped = [(0.1 * (2 ** (layer / 5) - 1)) ** 4 for layer in range(6)]
    head, block = 4096 * 64, BLOCK + 128
    gathered = 0.75 * 2 * (3 * head + 64 + 2 * block * (6 - sum(dropped)))
    reduced = 0.75 * 4 * (2 * head + 64 + block * (6 - sum(dropped)))
    assert f"{'parameters gathered':<46} {gathered / 2**30:>8.3g}" in text
    assert f"{'gradients reduced and scattered':<46} {reduced / 2**30:>8.3g}" in text
    norm = 2 * 0.75 * 4 * (7 * (6 - sum(dropped)) + 3)
    assert f"{(gathered + reduced + norm) / (86400 / 41) / 1e9:.3g} GB/s sent by a GPU" in text
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_is_counted_in_records_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = say(capsys, "experiment=topv2_1_5b", f"describe.output={tmp_path}/d.png")
    assert "train.records_per_step=256: steps and rows are those configured" in text
    assert "records" not in say(capsys, "model=llama_debug", f"describe.output={tmp_path}/d.png")


def test_dropout_that_saves_more_than_exits_cost_has_nothing_to_pay_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "nothing to pay back" in say(capsys, "layer_dropout=exp", f"describe.output={tmp_path}/a.png")


BAD = {
    "describe.world_size=0": r"describe\.world_size=0: must be null or at least 1",
    "describe.world_size=7": r"train\.global_batch_size=16: must be a multiple of .* 7 = 7",
    "describe.deadline_days=0": r"describe\.deadline_days=0\.0: must be above 0",
    "describe.speedup=1": r"describe\.speedup=1\.0: must be above 1",
    "describe.output=/proc/none/a.png": r"describe\.output=/proc/none/a\.png: ",
    "describe.output=a.xyz": r"describe\.output=a\.xyz: .*xyz",
    "model=initial": r"model=initial: needs checkpoint\.initial",
}


@pytest.mark.parametrize(("override", "message"), BAD.items(), ids=BAD.keys())
def test_mistakes(override: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        say(capsys, override)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_command_line(tmp_path: Path) -> None:
    done = command("-m", "train.describe", "experiment=topv2_1_5b", f"describe.output={tmp_path}/t.png")
    assert done.returncode == 0, done.stderr
    assert "world size 8, 8 to a copy of the model; 8 rows a GPU at a time; bf16" in done.stdout
    assert (tmp_path / "t.png").exists()
    done = command("-m", "train.describe", "describe.sped=2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: describe.sped: unknown key (did you mean speedup?)")
    assert done.stderr.count("\n") == 1


def test_it_starts_without_torchtitan() -> None:
    done = command("-c", "import sys, train.describe, train.cost.schedule_plot; sys.exit('torchtitan' in sys.modules)")
    assert done.returncode == 0, done.stderr


def held_after_forward(config: PretrainConfig) -> int:
    """Bytes that a forward in fp32 leaves behind for the backward."""
    corpus: Any = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=4096))
    titan = trainer_config(config, corpus)
    with FakeTensorMode(), LiveMemory() as live:
        model = titan.model_spec.model.build()
        if titan.activation_checkpoint is not None:
            titan.activation_checkpoint.build(dump_folder="").apply(model)
        model._skip_lm_head = True
        tokens = torch.zeros(2, 256, dtype=torch.int64)
        before = live.n_bytes()
        states = model(tokens)
        held = live.n_bytes() - before
        del states
    return held


# A CPU's norms are not fused and hold their scaled input too; the selective policy does not know a CPU's attention.
ON_A_CPU = {"none": 2 * 64 * 4, "selective": -(64 * 4 + 4 * 4), "full": 0}


@pytest.mark.parametrize("mode", ON_A_CPU)
def test_activations_of_a_block_are_those_that_autograd_holds(mode: str) -> None:
    options = [f"activation_checkpoint={mode}", "train.precision=fp32", "train.local_batch_size=2"]
    three, four = (run(*options, n_layers=n) for n in (3, 4))
    measured = held_after_forward(four) - held_after_forward(three)
    estimate = memory_per_gpu(four, 1, 1).activations - memory_per_gpu(three, 1, 1).activations
    assert measured == estimate + 2 * 256 * ON_A_CPU[mode]
