"""Where a command writes."""

from pathlib import Path

from conf.strict import ConfigError


def writable(path: str | Path, key: str = "output") -> Path:
    """The path that `key` gives, once a file can be written there. Raises ConfigError before anything is measured."""
    path = Path(path).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
    except OSError as error:
        raise ConfigError(f"{key}={path}: {error.strerror}") from None
    if not path.stat().st_size:
        path.unlink()
    return path
