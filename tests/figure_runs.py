"""Run folders and result files with known numbers, for the tests of eval.figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from eval.figure.album import Album, arms_of
from eval.figure.config import FigureName, FiguresConfig

L = 4
Maker = Callable[..., Path]


def loss(exit_layer: int, step: int, seed: int, arm: float = 0.0) -> float:
    """What synthetic runs have measured: exact in binary, so that means are."""
    return 8.0 - exit_layer - step / 256 + seed / 4 + arm


def training_loss(step: int, seed: int) -> float:
    return 8.0 - step / 64 + seed / 2


def write_run(folder: Path, changes: dict[str, Any], corpus: dict[str, Any], steps: int, arm: float) -> None:
    config: dict[str, Any] = {
        "model": {"name": "tiny", "n_layers": L, "dim": 8},
        "train": {"steps": 64, "seq_len": 32, "global_batch_size": 8, "seed": 0},
        "data": {"packing": "concat", "sources": {"text": {"path": "a", "format": "text", "weight": 1.0}}},
        "layer_dropout": {"p_max": 0.0, "depth_schedule": "exponential", "time_schedule": "constant"},
        "early_exit": {"curriculum": "none", "e_scale": 0.0},
        "optimizer": {"lr": 0.001},
        "validation": {"tokens": 64, "exit_layers": []},
    }
    for key, value in changes.items():
        section, _, name = key.partition(".")
        config[section][name] = value
    seed = config["train"]["seed"]
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        rows.append({"step": step, "train/tokens": step * 256, "train/loss/exit_04": training_loss(step, seed)})
        if step % 16 == 0:
            losses = {f"val/loss/exit_{e:02d}": loss(e, step, seed, arm) for e in range(1, L + 1)}
            rows.append({"step": step, "val/tokens": 999 if step == config["train"]["steps"] else 64} | losses)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "corpus.json").write_text(
        json.dumps({"tokenizer": "t", "digests": {"text": "d"}, "validation_tokens": 999} | corpus)
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


LD = {"layer_dropout.p_max": 0.2}
CONSTANT = {"layer_dropout.p_max": 0.0889, "layer_dropout.depth_schedule": "constant"}
EE = {"early_exit.curriculum": "rotational", "early_exit.e_scale": 1.0}


def maker(folder: Path) -> Maker:
    """Writes a run folder of a name, with changed keys, so many steps done, and losses that are higher by `arm`."""

    def write(
        name: str, *changes: dict[str, Any], corpus: dict[str, Any] | None = None, steps: int = 64, arm: float = 0.0
    ) -> Path:
        merged = {key: value for part in changes for key, value in part.items()}
        write_run(folder / name, merged, corpus or {}, steps, arm)
        return folder / name

    return write


def four_arms(make: Maker, seeds: int = 2) -> Path:
    """Each arm's losses are a quarter higher than those of the one before."""
    for i, (name, changes) in enumerate([("a", {}), ("b", LD), ("c", EE), ("d", LD | EE)]):
        for seed in range(seeds):
            folder = make(f"{name}{seed}", changes, {"train.seed": seed}, arm=i / 4)
    return folder.parent


def album_of(*names: FigureName, **keys: Any) -> Album:
    config = FiguresConfig(**{key: list(map(str, v)) if isinstance(v, list) else v for key, v in keys.items()})
    album = Album(config, arms_of(config))
    for name in names:
        album.add(name)
    return album


def row(mode: str, exit_layer: int, d: int, speedup: float, **changes: Any) -> dict[str, Any]:
    return {
        "mode": mode,
        "exit_layer": exit_layer,
        "num_speculations": d,
        "exit_states": "reuse" if d else None,
        "rouge2": 0.1,
        "rouge2_low": 0.05,
        "rouge2_high": 0.2,
        "tokens_per_second": 100 * speedup,
        "ms_per_token": 10 / speedup,
        "speedup": speedup,
        "speedup_low": speedup - 0.1,
        "speedup_high": speedup + 0.1,
        "speedup_of_means": speedup,
        "speedup_of_means_low": speedup - 0.1,
        "speedup_of_means_high": speedup + 0.1,
        "acceptance_rate": 0.5 if d else None,
        "task": "cnn_dm",
        "n_samples": 8,
        "seed": 0,
        "hardware": "H200",
        "dtype": "bfloat16",
        "checkpoint": "unknown",
    } | changes


def write_sweep(run: Path, name: str = "sweep.json", plus: float = 0.0, **changes: Any) -> Path:
    rows = [row("autoregressive", 4, 0, 1.0, **changes), row("early_exit", 1, 0, 4.0, **changes)]
    rows += [row("self_speculative", e, d, 1 + e / 4 + d / 16 + plus, **changes) for e in (1, 2) for d in (2, 4)]
    (run / name).write_text(json.dumps(rows))
    return run / name
