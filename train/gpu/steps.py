"""The steps of train.acceptance: commands of ours, or measurements of train.gpu.work, with their shares of the time."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.gpu.config import Sizes

# What differs between the sizes. exit_layers: 1/4 of the layers, at which decoding drafts.
FULL = {
    "model": "llama_1_5b",
    "seq_len": 4096,
    "rows": 4,
    "rounds": 6,
    "warmup": 3,
    "recompute": ["selective", "full"],
    "exit_layer": 6,
    "new_tokens": 128,
    "samples": 3,
    "scaling_model": "llama_12_layers",
    "scaling_rows": 8,
    "pretrain": ["model=llama_demo", "train.steps=60", "train.global_batch_size=32", "train.seq_len=512"],
}
TINY = {
    "model": "llama_debug",
    "seq_len": 64,
    "rows": 4,
    "rounds": 2,
    "warmup": 1,
    "recompute": ["selective"],
    "exit_layer": 2,
    "new_tokens": 12,
    "samples": 2,
    "scaling_model": "llama_debug",
    "scaling_rows": 2,
    "pretrain": ["model=llama_debug", "train.steps=8", "train.global_batch_size=4", "train.seq_len=64"],
}
PROMPTS = (
    "Layer dropout skips whole blocks of some rows in training, so that",
    "import argparse\n\n\ndef main() -> None:\n    parser = argparse.ArgumentParser()\n    parser.add_argument(",
    "The first layers draft, the others verify. A draft is accepted if",
)
SMALL_RUN = "pretrain"
"""Folder of the small run, whose tokenizer the random model has, and name of its step."""
RANDOM_MODEL = "random_model"


@dataclass(frozen=True)
class Step:
    """One of them."""

    name: str
    words: list[str]
    """Command line."""
    share: float
    """Of the time, relative to the others'."""
    result: Path
    """JSON that it leaves; of the small run its metrics."""


def steps(device: str, sizes: Sizes, folder: Path, checkpoint: str | None, n_gpus: int) -> list[Step]:
    """In the order in which they run: what matters most comes first, what others need before them."""
    size: Mapping[str, Any] = FULL if sizes is Sizes.full else TINY
    prompts = folder / "prompts.jsonl"
    run, model = folder / SMALL_RUN, folder / RANDOM_MODEL
    of_task = ["task=prompts", f"task.source={prompts}", "task.draw=false", f"task.max_new_tokens={size['new_tokens']}"]
    of_task += [f"task.n_samples={size['samples']}", f"exit_layers=[{size['exit_layer']}]", "num_speculations=[4]"]
    decoding = [f"checkpoint={model}", *of_task]
    tokenizer = checkpoint or str(run)
    first, *others = size["recompute"]
    given = [] if checkpoint is None else [f"checkpoint={checkpoint}", f"task.n_samples={4 * size['samples']}"]
    return [
        _own("probe", folder, 2.0, device=device, sizes=sizes.value),
        _own("parity", folder, 6.0, device=device, compiled=sizes is Sizes.full),
        Step(SMALL_RUN, _small_run(folder, size), 9.0, run / "metrics.jsonl"),
        *_training(folder, device, size, first),
        _own(RANDOM_MODEL, folder, 3.0, device=device, model=size["model"], tokenizer=tokenizer, output=str(model)),
        _benchmark("decoding_eager", folder, device, 4.0, [*decoding, "compile=false"]),
        _benchmark("decoding_compiled", folder, device, 14.0, [*decoding, "compile=true"]),
        *([_benchmark("decoding_checkpoint", folder, device, 6.0, [*given, "compile=null"])] if given else []),
        _collectives(folder, device, size, n_gpus),
        *(step for recompute in others for step in _training(folder, device, size, recompute)),
    ]


def _training(folder: Path, device: str, size: Mapping[str, Any], recompute: str) -> list[Step]:
    """Compiled and eager, with one kind of recomputation."""
    options = {key: size[key] for key in ("model", "seq_len", "rows", "rounds", "warmup")}
    options |= {"device": device, "precision": "bf16" if device == "cuda" else "fp32", "recompute": recompute}
    return [
        _own(f"training_{recompute}_compiled", folder, 10.0, compiled=True, **options),
        _own(f"training_{recompute}_eager", folder, 5.0, compiled=False, **options),
    ]


def _own(name: str, folder: Path, share: float, **options: Any) -> Step:
    """A measurement of train.gpu.work; what comes before the first _ of the name is its kind."""
    result = folder / f"{name}.json"
    words = [sys.executable, "-m", "train.gpu.work", name, str(result), json.dumps(options)]
    return Step(name, words, share, result)


def _small_run(folder: Path, size: Mapping[str, Any]) -> list[str]:
    """The whole path of train.pretrain: data, steps compiled on a GPU, checkpoints behind training, a trace."""
    return [
        *(sys.executable, "-m", "train.pretrain"),
        *("data=text", "data.source=docs", f"data.cache_dir={folder / 'cache'}", "data.tokenizer.vocab_size=1024"),
        *("layer_dropout=exp_02", "early_exit=rotational", "early_exit.rotation_period=3", "optimizer=adamw_8e-4"),
        *size["pretrain"],
        *("train.log_every=2", "checkpoint.async_save=true", "checkpoint.every=4", "profiler.first_step=5"),
        *("validation.every=1000", "validation.final_tokens=4096", "wandb.mode=disabled", "cluster.needs_gpu=false"),
        f"run_dir={folder / SMALL_RUN}",
    ]


def _benchmark(name: str, folder: Path, device: str, share: float, words: list[str]) -> Step:
    """Of eval.benchmark."""
    result = folder / f"{name}.json"
    more = ["transformers=false", f"machine.device={device}", "fresh=true", f"output={result}"]
    return Step(name, [sys.executable, "-m", "eval.benchmark", *words, *more], share, result)


def _collectives(folder: Path, device: str, size: Mapping[str, Any], n_gpus: int) -> Step:
    """NCCL on one GPU and on all, or gloo on two processes: train.scaling, whose runs are those of torchrun."""
    ranks = sorted({1, n_gpus}) if device == "cuda" else [1, 2]
    result = folder / "collectives.json"
    words = [
        *(sys.executable, "-m", "train.scaling", f"scaling.output={result}"),
        f"scaling.ranks=[{','.join(map(str, ranks))}]",
        *("scaling.steps=10", "scaling.warmup=4"),
        *("data=text", "data.source=docs", f"data.cache_dir={folder / 'cache'}", "data.tokenizer.vocab_size=1024"),
        *(f"model={size['scaling_model']}", f"train.seq_len={min(size['seq_len'], 256)}"),
        *(f"train.local_batch_size={size['scaling_rows']}", "layer_dropout=exp_02", "early_exit=rotational"),
        *("wandb.mode=disabled", "cluster.needs_gpu=false"),
    ]
    return Step("collectives", words, 5.0, result)
