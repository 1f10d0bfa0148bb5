"""Training and validation text: a deterministic split by whole documents."""

import hashlib

from data.config import DataError
from data.sources import Document


def split(documents: list[Document], validation_fraction: float) -> tuple[list[Document], list[Document]]:
    """(training, validation) documents, each in the given order.

    Documents are held out in the order of a hash of their names until they make up the fraction of the bytes: the same
    on every machine, and adding a file moves few others. A single document is cut at a line instead, its end held out.
    Raises DataError when there is too little text for both.
    """
    if len(documents) == 1:
        return _cut(documents[0], validation_fraction)
    sizes = {d.name: len(d.text.encode("utf-8")) for d in documents}
    wanted = validation_fraction * sum(sizes.values())
    held_out: set[str] = set()
    n_bytes = 0
    for name in sorted(sizes, key=lambda n: hashlib.sha256(n.encode("utf-8")).digest()):
        if n_bytes >= wanted or len(held_out) == len(sizes) - 1:
            break
        held_out.add(name)
        n_bytes += sizes[name]
    train = [d for d in documents if d.name not in held_out]
    validation = [d for d in documents if d.name in held_out]
    if not train or not validation:
        raise DataError(f"{len(documents)} documents cannot be split into training and validation text")
    return train, validation


def _cut(document: Document, validation_fraction: float) -> tuple[list[Document], list[Document]]:
    text = document.text
    at = text.rfind("\n", 0, max(1, round(len(text) * (1 - validation_fraction)))) + 1
    if at == 0:
        raise DataError(f"{document.name}: one line of text cannot be split into training and validation text")
    return [Document(document.name, text[:at])], [Document(document.name + "#end", text[at:])]
