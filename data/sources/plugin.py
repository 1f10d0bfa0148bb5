"""A source of the user's own: a function without arguments that gives texts, or token rows, one document each."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from conf.errors import reason
from conf.plugins import load_function
from data.config import DataError, SourceConfig
from data.sources.documents import Bad, Document

CHUNK_DOCUMENTS = 256


@dataclass
class Given:
    """Documents in memory, as the function gave them."""

    name: str
    first: int
    items: list[Any]
    n_source_bytes: int = 0

    def documents(self, source: SourceConfig) -> Iterator[Document | Bad]:
        """One an item, counted from 1."""
        del source
        for number, item in enumerate(self.items, self.first):
            yield _document(item, f"{self.name}:{number}")


def _document(item: Any, name: str) -> Document | Bad:
    if isinstance(item, str):
        return Document(name, item)
    try:
        tokens = tuple(int(token) for token in item)
    except (TypeError, ValueError):
        return Bad(f"{name}: {type(item).__name__}, neither a text nor a row of token ids")
    return Document(name, "", tokens=tokens)


def plugin_chunks(path: str) -> Iterator[Given]:
    """The chunks of `my_package.mine:name`. Raises DataError for whatever the function raises, and for no document."""
    try:
        function = load_function(path, "path", ())
    except ValueError as error:
        raise DataError(str(error)) from None
    first = 1
    try:
        items = iter(function())
        while chunk := list(islice(items, CHUNK_DOCUMENTS)):
            yield Given(path, first, chunk)
            first += len(chunk)
    except DataError:
        raise
    except Exception as error:  # the user's code raises anything
        what = f"{type(error).__name__}: {reason(error)}"
        raise DataError(f"{path}, after document {first - 1}: {what}") from None
    if first == 1:
        raise DataError(f"{path}: gave no document")
