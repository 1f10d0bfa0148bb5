"""A document, and how one is made of a record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.config import Format, SourceConfig
from data.sources.topv2 import Rendering, completion, prompt

TSV_FIELDS = ("domain", "utterance", "semantic_parse")


@dataclass(frozen=True)
class Document:
    """One text, and a name that stays the same wherever the corpus lies."""

    name: str
    """Path relative to the corpus, with the number of a record in its file."""
    text: str
    prompt: str = ""
    """What comes before the text, without a loss on it."""
    tokens: tuple[int, ...] = ()
    """In place of a text: its tokens, with what begins and ends it."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to learn from."""
        return not (self.text or self.tokens)


@dataclass(frozen=True)
class Bad:
    """A record that cannot be read: the line that tells where and why."""

    message: str


def fields(source: SourceConfig) -> list[str]:
    """The fields that a record must have."""
    match source.format:
        case Format.text:
            return [source.text_field]
        case Format.prompt_completion:
            return [source.prompt_field, source.completion_field]
        case _:
            return list(TSV_FIELDS[1:])


def document_of(record: Any, source: SourceConfig, name: str, where: str) -> Document | Bad:
    """The document of a record (a mapping of its fields).

    Args:
        record: as it was read.
        source: says what its fields mean.
        name: of the document.
        where: file and line, for the message.
    """
    if not isinstance(record, Mapping):
        return Bad(f"{where}: not an object with the fields {', '.join(fields(source))}")
    values: list[str] = []
    for key in fields(source):
        value = record.get(key)
        if not isinstance(value, str):
            what = f"no text in field '{key}'" if key in record else f"no field '{key}'"
            return Bad(f"{where}: {what}{_setting(source)}; fields: {', '.join(map(str, record))}{_remedy(source)}")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # JSON can escape one half of a surrogate pair
            return Bad(f"{where}: field '{key}' holds half a surrogate pair, which is no character")
        values.append(value)
    match source.format:
        case Format.text:
            return Document(name, values[0])
        case Format.prompt_completion:
            before, after = values
        case _:
            rendering = Rendering.json if source.format is Format.topv2_json else Rendering.parse
            try:
                before, after = prompt(values[0]), completion(values[1], rendering)
            except ValueError as error:
                return Bad(f"{where}: not a parse ({error})")
    if not after:
        return Bad(f"{where}: the completion is empty")
    return Document(name, after, before)


def _remedy(source: SourceConfig) -> str:
    if source.format is not Format.text:
        return ""
    return "; choose one with data.text_field (data.prepare: dataset.text_field, eval.perplexity: text_field)"


def _setting(source: SourceConfig) -> str:
    match source.format:
        case Format.text:
            return " (text_field)"
        case Format.prompt_completion:
            return " (prompt_field, completion_field)"
        case _:
            return f" (a .tsv file begins with {' '.join(TSV_FIELDS)})"
