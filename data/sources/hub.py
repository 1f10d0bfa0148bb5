"""Data sets of the Hugging Face hub, read as streams by `datasets`; hf:///folder reads local files the same way."""

from collections.abc import Iterator, Sequence
from typing import Any

from data.config import DataError, SourceConfig
from data.sources.chunks import CHUNK_BYTES, Chunk, Records, Unreadable
from data.sources.compressed import reason
from data.sources.documents import fields
from data.sources.source_files import HUB


def open_stream(source: SourceConfig, split: str | None = None, columns: Sequence[str] | None = None) -> Any:
    """A `datasets.IterableDataset`. Raises DataError when it cannot be opened.

    Args:
        source: what to open.
        split: which; None: that of the source.
        columns: that it must have, and all columns are kept; None: those that its format needs, alone.
    """
    import datasets

    datasets.disable_progress_bars()
    try:
        stream = datasets.load_dataset(
            source.path.removeprefix(HUB),
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
