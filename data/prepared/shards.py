"""Prepared tokens on disc: shards and the manifest that says what they are.

A folder holds `manifest.json`, the tokenizer's files, and for each part (train, validation) numbered pairs of
`train_00000.npy`, the tokens of whole documents one after another ([N] uint16 or uint32), and `train_00000.docs.npy`,
[documents, 2] int64: where each document ends in the shard, and how many of its tokens are a prompt without loss.
"""

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conf.errors import reason
from data.config import DataError
from data.files import write_array, write_whole
from data.prepared.file_array import FileArray
from data.sources.split import PARTS
from data.tokenizers.tokenizer import Tokenizer, load_tokenizer

MANIFEST = "manifest.json"
PROGRESS = "progress.jsonl"
"""What a preparation that is not finished has done."""
FORMAT = 1  # raise it when what the files mean changes


def is_prepared(path: str | Path) -> bool:
    """Whether a folder holds prepared shards."""
    return Path(path, MANIFEST).is_file()


def discard(folder: Path) -> None:
    """Delete what a preparation writes, and nothing else: the manifest first, so that a kill leaves none behind."""
    shard = re.compile(rf"({'|'.join(PARTS)})_\d{{5,}}(\.docs)?\.npy(\.partial)?")
    for file in (folder / MANIFEST, folder / PROGRESS, *sorted(f for f in folder.iterdir() if shard.fullmatch(f.name))):
        file.unlink(missing_ok=True)


def token_dtype(vocab_size: int) -> type[np.unsignedinteger]:
    """The smallest that holds all ids."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32


def file_hash(path: Path) -> str:
    """SHA-256 of a file's contents."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 over a tokenizer's files."""
    digest = hashlib.sha256()
    for name in sorted(tokenizer.files):
        digest.update(name.encode() + b"\0" + hashlib.sha256(tokenizer.files[name]).digest())
    return digest.hexdigest()


def write_shard(folder: Path, part: str, number: int, tokens: np.ndarray, documents: np.ndarray) -> dict[str, Any]:
    """Write a pair of files; returns its entry in the manifest. Raises OSError."""
    entry: dict[str, Any] = {"n_tokens": len(tokens), "n_documents": len(documents)}
    for key, suffix, array in (("tokens", ".npy", tokens), ("documents", ".docs.npy", documents)):
        name = f"{part}_{number:05d}{suffix}"
        partial = folder / (name + ".partial")
        write_array(partial, array)
        entry |= {key: name, f"{key}_bytes": partial.stat().st_size, f"{key}_sha256": file_hash(partial)}
        partial.replace(folder / name)
    return entry


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises DataError when it is missing, damaged or of another format."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        version = manifest["format"]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; prepare the shards again") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: damaged; prepare the shards again") from None
    if version != FORMAT:
        raise DataError(f"{path}: format {version}, but this version reads {FORMAT}; prepare the shards again")
    return dict(manifest)


def content_hash(manifest: dict[str, Any]) -> str:
    """SHA-256 of what the shards of all parts hold, from the checksums that `verify` compares them with."""
    checksums = [
        [part, shard["tokens_sha256"], shard["documents_sha256"]]
        for part, shards in sorted(manifest["parts"].items())
        for shard in shards
    ]
    return hashlib.sha256(json.dumps(checksums).encode()).hexdigest()


def verify(folder: Path, manifest: dict[str, Any], memory: Path) -> None:
    """Compare every file of a folder with its checksum, once: what was found right is written to `memory`.

    Raises DataError naming the file that is missing, cut off or corrupted.
    """
    known = json.loads(memory.read_text()) if memory.exists() else {}

    def stamp(path: Path) -> list[int]:
        return [path.stat().st_size, path.stat().st_mtime_ns]

    def check(entry: tuple[str, int, str]) -> None:
        name, size, checksum = entry
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path}: missing; prepare the shards again")
        if path.stat().st_size != size:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes instead of {size:,}; prepare the shards again")
        if known.get(name) != stamp(path) and file_hash(path) != checksum:
            raise DataError(f"{path}: corrupted (its checksum is not that of the manifest); prepare the shards again")

    entries = [
        (shard[key], shard[f"{key}_bytes"], shard[f"{key}_sha256"])
        for shards in manifest["parts"].values()
        for shard in shards
        for key in ("tokens", "documents")
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, entries))
    memory.parent.mkdir(parents=True, exist_ok=True)
    write_whole(memory, json.dumps({name: stamp(folder / name) for name, _, _ in entries}).encode())


def shards_tokenizer(folder: Path, manifest: dict[str, Any]) -> Tokenizer:
    """The tokenizer that lies with the shards. Raises DataError when it is not the one that made them."""
    tokenizer = load_tokenizer(folder)
    if tokenizer_hash(tokenizer) != manifest["tokenizer_sha256"]:
        raise DataError(f"{folder}: the tokenizer there is not the one that made the shards; prepare them again")
    return tokenizer


@dataclass(frozen=True)
class Shard:
    """Tokens of whole documents, and where those are."""

    tokens: np.ndarray | FileArray
    """[N] uint16 or uint32."""
    documents: np.ndarray | FileArray
    """[documents, 2] int64: end, and length of the prompt."""


@dataclass(frozen=True)
class _Ends(Sequence[int]):
    """Where documents end, read one by one: to find one, few of many are looked at."""

    documents: np.ndarray | FileArray

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, i: Any) -> Any:
        return int(self.documents[i, 0])


class Tokens:
    """Shards one after another as one sequence of tokens."""

    def __init__(self, shards: list[Shard]) -> None:
        """The shards stay on disc; they are reopened, not copied, in processes that are started fresh."""
        self.shards = shards
        self.starts = np.cumsum([0, *(len(s.tokens) for s in shards)])
        self.has_prompts = any(bool(s.documents[:, 1].any()) for s in shards)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def fingerprint(self) -> str:
        """A hash of where the documents lie; the tokens between do not matter to who packs them."""
        digest = hashlib.sha256()
        for shard in self.shards:
            digest.update(shard.documents[:].tobytes())
        return digest.hexdigest()[:16]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens start..stop-1 (fewer at the end) as int64."""
        stop = min(stop, len(self))
        i = int(np.searchsorted(self.starts, start, side="right")) - 1
        pieces = []
        while start < stop:
            offset = start - int(self.starts[i])
            piece = self.shards[i].tokens[offset : offset + stop - start]
            pieces.append(piece)
            start, i = start + len(piece), i + 1
        if len(pieces) == 1:
            return pieces[0].astype(np.int64)
        return np.concatenate([np.empty(0, np.int64), *pieces]).astype(np.int64)

    def in_prompt(self, start: int, stop: int) -> np.ndarray:
        """[stop-start] bool: which of the tokens belong to a prompt (with what begins the document)."""
        inside = np.zeros(stop - start, bool)
        for begin, n_prompt in self._documents(start, stop):
            inside[max(begin - start, 0) : max(begin + n_prompt - start, 0)] = True
        return inside

    def begins(self, start: int, stop: int) -> np.ndarray:
        """Ascending places of the tokens in start..stop-1 that begin a document, int64."""
        return np.array([begin for begin, _ in self._documents(start, stop) if begin >= start], np.int64)

    def _documents(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """(where it begins, tokens of its prompt) of every document with a token in start..stop-1, in order."""
        for shard, base in zip(self.shards, self.starts, strict=False):
            if base + len(shard.tokens) <= start or base >= stop:
                continue
            documents = shard.documents
            first = bisect_right(_Ends(documents), start - base)
            for i in range(first, len(documents)):
                begin = int(base) + (int(documents[i - 1, 0]) if i else 0)
                if begin >= stop:
                    break
                yield begin, int(documents[i, 1])


def open_part(folder: Path, manifest: dict[str, Any], part: str) -> Tokens:
    """The tokens of a part, which stay on disc. Raises DataError for a file that cannot be read, then or later."""
    shards = []
    for entry in manifest["parts"].get(part, []):
        try:
            arrays = [
                FileArray(folder / entry[key], "prepare the shards again", entry[f"{key}_sha256"])
                for key in ("tokens", "documents")
            ]
        except (OSError, ValueError) as error:
            raise DataError(
                f"{folder / entry['tokens']}: cannot be read ({reason(error)}); prepare the shards again"
            ) from None
        shards.append(Shard(*arrays))
    return Tokens(shards)
