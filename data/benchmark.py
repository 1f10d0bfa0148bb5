"""Time preparing and reading of data: `python -m data.benchmark output=FILE`."""

import json
import logging
import subprocess
import sys
import tempfile
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.progress import each
from conf.provenance import code_revision, processor
from conf.strict import convert
from data.benchmark_config import DataBenchmarkConfig
from data.config import DataError
from data.files import write_whole
from data.sources.reading import read_documents

ROOT = Path(__file__).parent.parent


def benchmark(raw: DictConfig) -> None:
    """Measure, print, write the figures."""
    config = convert(raw, DataBenchmarkConfig)
    import datasets
    import torch

    from data.corpus import trained_tokenizer
    from data.prepared.parallel import n_processes
    from data.throughput import measure_throughput, medians
    from data.tokenizers.tokenizer import load_tokenizer

    output = writable(config.output)
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)  # the other loaders tell each new epoch
    warnings.simplefilter("ignore")
    texts = _texts(config)
    with tempfile.TemporaryDirectory() as folder:
        tmp = Path(folder)
        if config.tokenizer.path is not None:
            tokenizer = load_tokenizer(config.tokenizer.path)
        else:
            tokenizer = load_tokenizer(trained_tokenizer({"data": config.dataset}, config.tokenizer, 0.0, tmp))
        rounds = measure_throughput(
            texts,
            tokenizer,
            tmp,
            seq_len=config.seq_len,
            batch_size=config.batch_size,
            seconds=config.seconds,
            workers=config.workers,
        )
        measured = list(islice(each(rounds, "data.benchmark", unit="round", total=config.rounds), config.rounds))
        figures: dict[str, Any] = medians(measured)
        if config.demo_steps:
            figures["data_wait_fraction"] = _data_wait(tmp, config.demo_steps)
    figures |= {
        "rounds": measured,
        "data": config.dataset.path,
        "bytes": sum(len(t.encode("utf-8")) for t in texts),
        "documents": len(texts),
        "vocab_size": tokenizer.vocab_size,
        "seq_len": config.seq_len,
        "batch_size": config.batch_size,
        "workers": n_processes(config.workers),
        "hardware": processor(),
        "threads": torch.get_num_threads(),
        "commit": code_revision(),
    }
    write_whole(output, json.dumps(figures, indent=1).encode())
    for key, value in figures.items():
        if key.endswith("_per_second"):
            print(f"{key:<42} {value:>15,.0f}")
    for key, value in figures.items():
        if "_over_" in key and not key.endswith(("_q25", "_q75")):
            print(f"{key:<42} {value:>15.2f}  (quartiles {figures[f'{key}_q25']:.2f} to {figures[f'{key}_q75']:.2f})")
    if "data_wait_fraction" in figures:
        print(f"{'data_wait_fraction':<42} {figures['data_wait_fraction']:>15.5f}")
    print(output)


def _texts(config: DataBenchmarkConfig) -> list[str]:
    """Documents of so many megabytes, repeated if there are not so many: a second's work would measure the start."""
    texts: list[str] = []
    left = config.max_megabytes * 10**6
    while left > 0:
        before = left
        for document in read_documents(config.dataset):
            texts.append(document.text)
            left -= len(document.text)
            if left <= 0:
                break
        if left == before:
            raise DataError(f"{config.dataset.path}: no text")
    return texts


def _data_wait(tmp: Path, steps: int) -> float:
    """The share of its step time that a run of the demo waits for data, over all but its first steps."""
    words = ["experiment=demo", f"run_dir={tmp}/demo", f"train.steps={steps}", "train.log_every=10"]
    words += [f"data.cache_dir={tmp}/cache", "wandb.mode=disabled", "validation.final_tokens=1024"]
    words += ["validation.exit_layers=[1]", f"checkpoint.every={steps}"]
    done = subprocess.run(
        [sys.executable, "-m", "train.pretrain", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DataError(f"the demo failed: {done.stderr.strip().splitlines()[-1]}")
    rows = [json.loads(line) for line in (tmp / "demo" / "metrics.jsonl").read_text().splitlines()]
    waits = [row["train/data_wait_fraction"] for row in rows if row["step"] > 1 and "train/data_wait_fraction" in row]
    return float(sum(waits) / len(waits))


if __name__ == "__main__":
    command("data_benchmark", DataBenchmarkConfig, benchmark)
