"""Training and validation text: a deterministic split by whole documents, known before any of them is read."""

import hashlib
from dataclasses import dataclass

from data.config import SourceConfig
from data.sources.documents import Document
from data.sources.source_files import LINES, PARQUET, find_files, has_files, kind

TRAIN = "train"
VALIDATION = "validation"
PARTS = (TRAIN, VALIDATION)


@dataclass(frozen=True)
class Split:
    """Which part a document belongs to.

    Files that are a document each are held out in the order of a hash of their names until they make up the fraction of
    the bytes: adding a file moves few others. A file that is the only document of its source is cut at a line instead.
    Records are held out when the hash of their name lies below the fraction.
    """

    fraction: float
    files: frozenset[str] = frozenset()
    """Names of the files that are held out."""
    lone: str | None = None
    """Name of the only file."""
    everything: bool = False
    """Hold all of it out."""

    def parts(self, document: Document) -> list[tuple[str, Document]]:
        """(part, document); two of them for a document that is cut."""
        if self.everything:
            return [(VALIDATION, document)]
        if document.name == self.lone:
            return _cut(document, self.fraction)
        held_out = document.name in self.files
        if ":" in document.name:  # a record
            held_out |= _hash(document.name) < self.fraction * 2**64
        return [(VALIDATION if held_out else TRAIN, document)]


def split_of(source: SourceConfig, fraction: float) -> Split:
    """How a source is split; fraction 0 holds nothing out."""
    if fraction == 0.0 or not has_files(source.path):
        return Split(fraction)
    root, files = find_files(source.path)
    texts = [f for f in files if kind(f) not in LINES + PARQUET]
    sizes = {f.relative_to(root).as_posix(): f.stat().st_size for f in texts}
    if len(files) == len(texts) == 1:
        return Split(fraction, lone=next(iter(sizes)))
    return Split(fraction, files=frozenset(_held_out(sizes, fraction)))


def _held_out(sizes: dict[str, int], fraction: float) -> set[str]:
    n_held_out = fraction * sum(sizes.values())
    held_out: set[str] = set()
    n_bytes = 0
    for name in sorted(sizes, key=lambda n: hashlib.sha256(n.encode("utf-8")).digest()):
        if n_bytes >= n_held_out or len(held_out) == len(sizes) - 1:
            break
        held_out.add(name)
        n_bytes += sizes[name]
    return held_out


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest(), "big")


def _cut(document: Document, fraction: float) -> list[tuple[str, Document]]:
    text = document.text
    at = text.rfind("\n", 0, max(1, round(len(text) * (1 - fraction)))) + 1
    return [
        (part, Document(document.name + mark, content))
        for part, mark, content in ((TRAIN, "", text[:at]), (VALIDATION, "#end", text[at:]))
        if content
    ]
