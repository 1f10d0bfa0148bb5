"""The command itself, on a run of seconds: what it writes, prints and refuses."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def pretrain(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train.pretrain", *overrides, f"run_dir={folder}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_run_from_begin_to_end_and_again(tmp_path: Path, tiny_run: list[str]) -> None:
    options = [*tiny_run, "early_exit=all", "train.steps=6", "validation.every=4", "wandb.mode=offline"]
    done = pretrain(tmp_path / "run", *options, "checkpoint.every=4")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    assert (folder / "perplexity_by_exit.png").read_bytes().startswith(b"\x89PNG")
    assert "step 6/6  loss " in done.stderr
    assert "tokens/s  left 0:00" in done.stderr
    table = done.stdout
    assert [line.split()[0] for line in table.splitlines()[:5]] == ["exit_layer", "1", "2", "3", "4"]
    assert (folder / "summary.txt").read_text() == table
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    val = [r for r in rows if "val/ppl/exit_04" in r]
    assert [r["step"] for r in val] == [4, 6]
    assert val[-1]["val/agreement/exit_04"] == 1.0
    assert {"train/loss/exit_02", "train/loss/exit_04", "train/objective", "train/lr"} <= rows[0].keys()
    assert {"config.yaml", "starts.jsonl", "tokenizer.model"} <= {p.name for p in folder.iterdir()}
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert sorted(p.name for p in (folder / "checkpoint").iterdir()) == ["step-4", "step-6"]
    assert not {".lock", ".initial.lock", "comm_traces"} & {p.name for p in folder.iterdir()}

    again = pretrain(folder, *options, "checkpoint.every=4")
    assert again.returncode == 0
    assert "is finished (step 6 of 6)" in again.stderr
    assert again.stdout == table
    longer = pretrain(folder, *options, "checkpoint.every=4", "train.steps=7")
    assert longer.returncode == 0
    assert "train.steps: 6 -> 7" in longer.stderr
    assert sorted(p.name for p in (folder / "checkpoint").iterdir()) == ["step-6", "step-7"]
    for file in (folder / "checkpoint" / "step-7").glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:100])
    damaged = pretrain(folder, *options, "train.steps=7")  # finished, by the checkpoint's name
    assert damaged.returncode == 0, damaged.stderr
    assert "step-7 IS DAMAGED (__0_0.distcp: it has 100 bytes and should have" in damaged.stderr
    assert "steps 7..7 of" in damaged.stderr
    assert sorted(p.name for p in (folder / "checkpoint").iterdir()) == ["step-6", "step-7", "step-7.damaged"]
    rows = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == [1, 2, 3, 4, 4, 5, 6, 6, 7, 7]
    other = pretrain(folder, *options, "model.n_layers=3")
    assert other.returncode == 2
    assert "error: model.n_layers=3: the checkpoints in run_dir=" in other.stderr


def test_a_diverged_run_ends_in_one_line_and_saves_nothing_spoiled(tmp_path: Path, tiny_run: list[str]) -> None:
    options = [*tiny_run, "train.steps=20", "checkpoint.every=5", "train.log_every=20", "optimizer.lr=1e30"]
    done = pretrain(tmp_path / "run", *options)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "is not finite" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "run" / "checkpoint").glob("step-*/.metadata"))
