"""Shards as they are completed: what a killed preparation finds when it is started again."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.config import DataError, OnError
from data.json_log import JsonLog
from data.prepare_config import SHARD_TOKENS
from data.prepared.encoding import EncodedChunk
from data.prepared.shards import PROGRESS, write_shard
from data.sources.split import PARTS, TRAIN

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How a source is prepared."""

    validation_fraction: float
    """0: hold nothing out."""
    on_error: OnError = OnError.stop
    max_errors: int = 100
    workers: int | None = None
    """Processes; None: one per core."""
    shard_tokens: int = SHARD_TOKENS
    """A shard is closed once it has so many training tokens."""


class Progress:
    """The shards that are complete, and the one being gathered."""

    def __init__(self, folder: Path, made_from: dict[str, Any], settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self._log = JsonLog(
            folder / PROGRESS,
            header=made_from,
            read=_shard,
            write=dict,
            mismatch=(
                f"{folder}: was begun with another source, tokenizer or setting; choose another or delete it"
                " (data.prepare: fresh=true)"
            ),
            remedy="delete the folder to begin anew",
        )
        self.shards = self._log.entries
        self.next_chunk = self.shards[-1]["end_chunk"] if self.shards else 0
        if self.shards:
            logger.info("going on after %d complete shards", len(self.shards))
        self.n_bad = sum(len(shard["bad"]) for shard in self.shards)
        self.n_tokens = sum(entry["n_tokens"] for shard in self.shards for entry in shard["parts"].values())
        self._open: list[EncodedChunk] = []
        self._open_tokens = 0

    def add(self, chunk: EncodedChunk) -> None:
        """Take the next chunk. Raises DataError when too much of it could not be read."""
        self._check(chunk.bad)
        self._open.append(chunk)
        self._open_tokens += len(chunk.parts[TRAIN].tokens)
        self.n_tokens += sum(len(part.tokens) for part in chunk.parts.values())
        if self._open_tokens >= self.settings.shard_tokens:
            self.close_shard()

    def _check(self, bad: list[str]) -> None:
        for message in bad:
            self.n_bad += 1
            if self.settings.on_error is OnError.stop:
                raise DataError(f"{message} (on_error=skip leaves such records out, and counts them)")
            logger.warning("left out: %s", message)
            if self.n_bad > self.settings.max_errors:
                raise DataError(f"{message}: more than max_errors={self.settings.max_errors} records cannot be read")

    def close_shard(self) -> None:
        """Write what was gathered, and say that it is complete."""
        if not self._open:
            return
        number = len(self.shards)
        entry: dict[str, Any] = {"end_chunk": self.next_chunk + len(self._open), "parts": {}}
        for part in PARTS:
            encoded = [chunk.parts[part] for chunk in self._open]
            lengths = [n for e in encoded for n in e.lengths]
            if not lengths:
                continue
            prompts = [n for e in encoded for n in e.prompts]
            tokens = np.concatenate([e.tokens for e in encoded])
            documents = np.stack([np.cumsum(lengths), prompts], axis=1).astype(np.int64)
            entry["parts"][part] = write_shard(self.folder, part, number, tokens, documents)
            entry["parts"][part]["n_bytes"] = sum(e.n_bytes for e in encoded)
        entry["bad"] = [message for chunk in self._open for message in chunk.bad]
        entry["empty"] = [name for chunk in self._open for name in chunk.empty]
        self._log.add([entry])
        self.next_chunk = entry["end_chunk"]
        self._open, self._open_tokens = [], 0

    def remove(self) -> None:
        """Delete the file of what is complete: the manifest says so from now on, or all begins anew."""
        self._log.remove()


def _shard(value: Any) -> dict[str, Any]:
    """Raises KeyError or TypeError for what is no shard's entry."""
    for part in value["parts"].values():
        int(part["n_tokens"])
    return {**value, "end_chunk": int(value["end_chunk"]), "bad": list(value["bad"]), "empty": list(value["empty"])}
