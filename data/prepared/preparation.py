"""Tokenizing a source into shards: on all cores, in order, continuing after a kill where it stopped.

Chunks are tokenized by processes and written in their order, so that the shards depend on source, tokenizer and
settings alone. A shard holds whole chunks; when one is complete a line of `progress.jsonl` says so, and a start that
finds such lines goes on with the next chunk. `manifest.json` is written last.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from conf.hub import HUB
from conf.plugins import digest as plugin_digest
from conf.plugins import is_plugin
from conf.progress import progress
from data.config import DataError, Format, SourceConfig
from data.files import write_whole
from data.prepared.compressors import compressors
from data.prepared.encoding import Encoder
from data.prepared.parallel import encoded_chunks
from data.prepared.progress import Progress, Settings
from data.prepared.shards import FORMAT, MANIFEST, open_part, read_manifest, token_dtype, tokenizer_hash
from data.sources.chunks import Chunk
from data.sources.reading import source_chunks
from data.sources.source_files import find_files, has_files
from data.sources.split import PARTS, TRAIN, VALIDATION, Split, split_of
from data.sources.topv2 import EXAMPLE, Rendering, completion
from data.tokenizers.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


def source_fingerprint(source: SourceConfig) -> str:
    """A hash of what a source reads: settings, and names, sizes and times of its files."""
    settings = {k: str(v) for k, v in asdict(source).items() if k not in ("weight", "epochs", "streaming")}
    if source.format is Format.topv2_json:
        settings["example"] = completion(EXAMPLE, Rendering.json)
    digest = hashlib.sha256(json.dumps(settings).encode())
    for path in (source.path, source.validation):
        if path is not None and is_plugin(path):
            digest.update(plugin_digest(path).encode())
        elif path is not None and has_files(path) and not source.path.startswith(HUB):
            root, files = find_files(path)
            for file in files:
                stat = file.stat()
                digest.update(f"{file.relative_to(root).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def prepare_shards(source: SourceConfig, tokenizer: Tokenizer, folder: Path, settings: Settings) -> None:
    """Tokenize a source into a folder, or finish what a killed process has begun there.

    Raises DataError for bad input (as settings.on_error says), and for a folder that holds something else.
    """
    made_from = {
        "format": FORMAT,
        "source": source_fingerprint(source),
        "tokenizer_sha256": tokenizer_hash(tokenizer),
        "validation_fraction": settings.validation_fraction,
        "shard_tokens": settings.shard_tokens,
    }
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        if {key: manifest.get(key) for key in made_from} == made_from:
            return
        raise DataError(
            f"{folder}: holds shards of another source, tokenizer or setting; choose another or delete it"
            " (data.prepare: fresh=true)"
        )
    progress = Progress(folder, made_from, settings)
    for name, content in tokenizer.files.items():
        write_whole(folder / name, content)
    fraction = 0.0 if source.validation else settings.validation_fraction
    stages = [(source_chunks(source), split_of(source, fraction))]
    if source.validation:
        stages.append((source_chunks(source, validation=True), Split(0.0, everything=True)))
    _run(stages, Encoder(tokenizer, source, stages[0][1]), progress, settings, _source_bytes(source))
    _finish(folder, made_from, progress, tokenizer, source)


def _source_bytes(source: SourceConfig) -> int | None:
    paths = [source.path, *([source.validation] if source.validation else [])]
    if not all(map(has_files, paths)):
        return None
    return sum(f.stat().st_size for path in paths for f in find_files(path)[1])


def _run(
    stages: list[tuple[Iterator[Chunk], Split]],
    encoder: Encoder,
    written: Progress,
    settings: Settings,
    total: int | None,
) -> None:
    """Tokenize what is left of each stage into shards."""
    numbered = 0
    with progress("tokenizing", unit="B", total=total) as bar:
        for chunks, split in stages:
            stage = replace(encoder, split=split)
            skip = max(0, written.next_chunk - numbered)
            for chunk in islice(chunks, skip):
                numbered += 1
                bar.update(chunk.n_source_bytes)
            for encoded in encoded_chunks(chunks, stage, settings.workers):
                numbered += 1
                written.add(encoded)
                bar.update(encoded.n_source_bytes)
                bar.set_postfix_str(f"{written.n_tokens:,} tokens", refresh=False)
    written.close_shard()


def _finish(
    folder: Path, made_from: dict[str, Any], progress: Progress, tokenizer: Tokenizer, source: SourceConfig
) -> None:
    """Write the manifest and remove the progress file. Raises DataError when a part that must be there is empty."""
    parts = {part: [s["parts"][part] for s in progress.shards if part in s["parts"]] for part in PARTS}
    bad = [message for shard in progress.shards for message in shard["bad"]]
    empty = [name for shard in progress.shards for name in shard["empty"]]
    if empty:
        names = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
        logger.info("%s: %d documents are empty and were left out: %s", source.path, len(empty), names)
    if bad:
        logger.warning("%s: %d records could not be read and were left out", source.path, len(bad))
    facts: dict[str, float] = {
        f"{part}_{key}": sum(shard[f"n_{key}"] for shard in shards)
        for part, shards in parts.items()
        for key in ("documents", "bytes", "tokens")
    }
    needed_parts = [TRAIN, *([VALIDATION] if made_from["validation_fraction"] or source.validation else [])]
    for part in needed_parts:
        if not parts[part]:
            progress.remove()  # begin anew when the source or the fraction is better
            documents = int(facts["train_documents"] + facts["validation_documents"])
            raise DataError(
                f"{source.path}: {documents} documents with text cannot be split into training and validation text;"
                " give more text, another validation_fraction, or held-out text of its own (validation)"
            )
    if parts[VALIDATION]:
        held_out = open_part(folder, {"parts": parts}, VALIDATION)
        facts |= compressors(tokenizer.decode(held_out.read(0, 8 * 10**6).tolist()))
    manifest = made_from | {
        "dtype": np.dtype(token_dtype(tokenizer.vocab_size)).name,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_files": sorted(tokenizer.files),
        "path": source.path,
        "facts": facts,
        "bad": bad,
        "n_empty": len(empty),
        "parts": parts,
    }
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    progress.remove()
