"""The .samples.jsonl of a measurement: written sample by sample, so that a killed one goes on where it was.

The file's name carries a fingerprint of all that the numbers depend on; of the code that measures a digest, not the
commit, which changes with a page of documentation. Other settings therefore write another file: nothing is mixed, and
nothing is lost by trying something else in between.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from data.json_log import JsonLog, json_line

EntryT = TypeVar("EntryT")


def samples_path(output: Path, settings: Mapping[str, Any]) -> Path:
    """Beside the output: benchmark.json -> benchmark.samples-1a2b3c4d.jsonl."""
    fingerprint = hashlib.sha256(json_line(settings)[:-1]).hexdigest()[:8]
    return output.with_name(f"{output.stem}.samples-{fingerprint}.jsonl")


def samples_log(
    path: Path,
    settings: Mapping[str, Any],
    read: Callable[[Any], EntryT],
    write: Callable[[EntryT], Any],
    *,
    fresh: bool = False,
) -> JsonLog[EntryT]:
    """The file's entries. Raises ConfigError while another process writes it, DataError when it is damaged."""
    return JsonLog(
        path,
        header={"settings": settings},
        read=read,
        write=write,
        mismatch=f"{path}:1: not the settings of this measurement; fresh=true writes the file anew",
        sort_keys=True,
        fresh=fresh,
    )


def why_anew(path: Path, settings: Mapping[str, Any]) -> str | None:
    """For a file that is not there yet, the nearest one beside it and in what its settings differ; else None."""
    if path.exists():
        return None
    ours: dict[str, Any] = json.loads(json_line(settings))
    found = []
    for other in path.parent.glob(f"{path.name.partition('.samples-')[0]}.samples-*.jsonl"):
        with other.open("rb") as file:
            try:
                theirs = json.loads(file.readline())["settings"]
                keys = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
            except (ValueError, LookupError, TypeError, AttributeError):
                continue
        found.append((len(keys), other.name, ", ".join(keys)))
    return f"begins anew: {min(found)[1]} is of other {min(found)[2]}" if found else None
