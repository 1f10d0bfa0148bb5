"""Tokenize a source into memory-mapped shards: `python -m data.prepare dataset.path=FOLDER output=SHARDS`."""

import logging
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from conf.command import command
from conf.strict import ConfigError, convert
from data.prepare_config import PrepareConfig
from data.sources.split import PARTS

if TYPE_CHECKING:
    from data.tokenizers.tokenizer import Tokenizer


def prepare(raw: DictConfig) -> None:
    """Prepare the shards, and print what came out."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    config = convert(raw, PrepareConfig)
    from data.prepared.preparation import prepare_shards
    from data.prepared.progress import Settings
    from data.prepared.shards import discard, is_prepared

    if is_prepared(config.dataset.path):
        raise ConfigError(f"dataset.path={config.dataset.path}: holds prepared shards already")
    output = Path(config.output).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    held = FileLock(output / ".lock")
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"output={output}: another process is preparing there; wait for it") from None
    if config.fresh:
        discard(output)
    begun = time.perf_counter()
    finished = is_prepared(output)
    settings = Settings(
        config.validation_fraction, config.on_error, config.max_errors, config.workers, config.shard_tokens
    )
    prepare_shards(config.dataset, _tokenizer(config, output), output, settings)
    _report(output, None if finished else time.perf_counter() - begun)
    (output / ".lock").unlink(missing_ok=True)  # whoever makes it anew finds the manifest and writes nothing


def _tokenizer(config: PrepareConfig, output: Path) -> "Tokenizer":
    from data.corpus import trained_tokenizer
    from data.prepared.shards import is_prepared, read_manifest, shards_tokenizer
    from data.tokenizers.tokenizer import load_tokenizer

    if config.tokenizer.path is not None:
        return load_tokenizer(config.tokenizer.path)
    if is_prepared(output):
        return shards_tokenizer(output, read_manifest(output))
    sources = {"dataset": config.dataset}
    return load_tokenizer(trained_tokenizer(sources, config.tokenizer, config.validation_fraction, output))


def _report(output: Path, seconds: float | None) -> None:
    from data.prepared.shards import read_manifest

    manifest = read_manifest(output)
    for trained in output.glob("tokenizer-*"):
        shutil.rmtree(trained)
    facts = manifest["facts"]
    for part in PARTS:
        if manifest["parts"][part]:
            print(
                f"{part:<10} {facts[f'{part}_documents']:>12,} documents {facts[f'{part}_tokens']:>15,} tokens"
                f" {facts[f'{part}_bytes']:>15,} bytes {len(manifest['parts'][part]):>5} shards"
            )
    tokens = sum(facts[f"{part}_tokens"] for part in PARTS)
    speed = "was finished before" if seconds is None else f"{seconds:,.1f} s, {tokens / seconds:,.0f} tokens/s"
    print(f"{len(manifest['bad'])} unreadable and {manifest['n_empty']} empty documents left out; {speed}")
    print(f"{output}: manifest.json, {', '.join(manifest['tokenizer_files'])}, shards of {manifest['dtype']}")


if __name__ == "__main__":
    command(
        "prepare",
        PrepareConfig,
        prepare,
        interrupted="interrupted; the same command goes on after the last complete shard",
    )
