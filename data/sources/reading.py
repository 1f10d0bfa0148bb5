"""The documents of a source, whatever it is."""

from collections.abc import Iterator
from dataclasses import replace

from conf.hub import HUB
from conf.plugins import is_plugin
from data.config import DataError, SourceConfig
from data.sources.chunks import Chunk, file_chunks
from data.sources.documents import Bad, Document
from data.sources.hub import hub_chunks
from data.sources.plugin import plugin_chunks


def source_chunks(source: SourceConfig, validation: bool = False) -> Iterator[Chunk]:
    """The chunks of a source, or those of its own validation text. Raises DataError when there is nothing."""
    path = (source.validation or "") if validation else source.path
    if is_plugin(path):
        return plugin_chunks(path)
    if source.path.startswith(HUB):
        return hub_chunks(source, source.validation if validation else None)
    return file_chunks(replace(source, path=path))


def read_documents(source: SourceConfig) -> Iterator[Document]:
    """Every document that has text, in order, its text unchanged.

    Raises DataError, naming file and line, for what cannot be read.
    """
    for chunk in source_chunks(source):
        for document in chunk.documents(source):
            if isinstance(document, Bad):
                raise DataError(document.message)
            if document.text:
                yield document
