"""Whether a checkpoint without a manifest has all the bytes that its .metadata speaks of."""

from pathlib import Path

from torch.distributed.checkpoint.filesystem import FileSystemReader

from conf.errors import reason
from models.storage.checkpoints import METADATA
from models.storage.manifest import Problem, unusable


def pieces_missing(folder: Path) -> list[Problem]:
    """Files that are missing or too short; wrong content is not found this way."""
    try:
        stored = FileSystemReader(folder).read_metadata().storage_data or {}
    except OSError as error:
        return [unusable(METADATA, error)]
    except Exception as error:  # what unpickling raises
        return [Problem(METADATA, True, reason(error))]
    ends: dict[str, int] = {}
    for piece in stored.values():
        ends[piece.relative_path] = max(ends.get(piece.relative_path, 0), piece.offset + piece.length)
    found = []
    for name, end in sorted(ends.items()):
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            found.append(unusable(name, error))
        else:
            if size < end:
                found.append(Problem(name, True, f"it has {size:,} bytes of at least {end:,}"))
    return found
