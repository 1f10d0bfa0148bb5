"""Data sets of the Hugging Face hub, read as streams by `datasets`; hf:///folder reads local files the same way."""

import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from conf.errors import reason
from conf.hub import HUB
from data.config import DataError, SourceConfig
from data.sources.chunks import CHUNK_BYTES, Chunk, Records, Unreadable
from data.sources.documents import fields


@cache
def unreachable() -> str | None:
    """Why this machine cannot connect to the hub; None: it can. Asked once, in seconds.

    The hub's libraries take half a minute to find out, at every data set anew, and print a dozen lines.
    """
    import httpx
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    why = ""
    for pause in (0.0, 1.0):  # a second try, so that a start of many processes does not fail for a moment's trouble
        time.sleep(pause)
        try:
            get_session().head(constants.ENDPOINT, timeout=5.0)
            return None
        except httpx.TransportError as error:
            why = reason(error)
    return why


def use_cache_if_unreachable() -> None:
    """Have the hub's libraries take what they have of earlier days without asking the hub whether it is new."""
    import datasets
    from huggingface_hub import constants

    if unreachable():
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True


def open_stream(source: SourceConfig, split: str | None = None, columns: Sequence[str] | None = None) -> Any:
    """A `datasets.IterableDataset`. Raises DataError when it cannot be opened.

    Args:
        source: what to open.
        split: which; None: that of the source.
        columns: that it must have, and all columns are kept; None: those that its format needs, alone.
    """
    import datasets

    datasets.disable_progress_bars()
    name = source.path.removeprefix(HUB)
    local = Path(name)
    if local.is_absolute() and not local.exists():
        raise DataError(f"{source.path}: cannot be opened (no such folder)")
    if not local.exists() and (why := unreachable()):
        raise DataError(f"{source.path}: the hub cannot be reached ({why}); from here, only local files can be read")
    try:
        stream = datasets.load_dataset(
            name,
            source.subset,
            split=split or source.split,
            revision=source.revision,
            streaming=True,
        )
        names = stream.column_names or list(next(iter(stream)))
    except StopIteration:
        raise DataError(f"{source.path}: split {split or source.split} is empty") from None
    except Exception as error:  # `datasets` and what it stands on raise many kinds
        raise DataError(f"{source.path}: cannot be opened ({reason(error)}); check name, subset, split") from None
    setting = " (text_field)" if columns is None else ""
    if missing := [f for f in columns or fields(source) if f not in names]:
        raise DataError(f"{source.path}: no column {', '.join(missing)}{setting}; columns: {', '.join(names)}")
    return stream.select_columns(fields(source)) if columns is None else stream


def records(stream: Any) -> Iterator[dict[str, Any]]:
    """The records of a stream, one at a time.

    Not by iterating over it: in a reading process of torch's DataLoader it would then give that process' share alone.
    """
    for batch in stream.iter(batch_size=1):
        yield {key: values[0] for key, values in batch.items()}


def hub_chunks(source: SourceConfig, split: str | None = None) -> Iterator[Chunk]:
    """The data set in order, half a megabyte of text at a time. Raises DataError when it cannot be opened."""
    name = source.path.removeprefix(HUB)
    first, gathered, size = 1, [], 0
    try:
        for record in records(open_stream(source, split)):
            gathered.append(record)
            size += sum(len(value) for value in record.values() if isinstance(value, str))
            if size >= CHUNK_BYTES:
                yield Records(name, first, gathered)
                first, gathered, size = first + len(gathered), [], 0
    except DataError:
        raise
    except Exception as error:
        yield Records(name, first, gathered)
        yield Unreadable(f"{name}:{first + len(gathered)}: cannot be read from here on ({reason(error)})")
        return
    yield Records(name, first, gathered)
