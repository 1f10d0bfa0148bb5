"""The paper's figures from several runs: `python -m eval.figures 'runs=[outputs/sweep]'`."""

import sys
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.strict import ConfigError, convert
from eval.figure.config import FigureName, FiguresConfig, NoNumbersError

if TYPE_CHECKING:
    from pathlib import Path


def figures(raw: DictConfig) -> "list[Path]":
    """Read the runs, group them into arms, draw what there are numbers for; prints the files and what was left out."""
    config = convert(raw, FiguresConfig)
    from eval.figure.album import Album, arms_of

    arms = arms_of(config)
    folder = writable(f"{config.output}/figures.json").parent
    album = Album(config, arms)
    for name in config.figures or list(FigureName):
        try:
            album.add(name)
        except NoNumbersError as error:
            if config.figures:
                raise
            print(f"left out {name.value}: {error}", file=sys.stderr)
    if album.is_empty:
        raise ConfigError("figures: these runs have numbers for none; see the lines above")
    files = album.save(folder)
    print(album.summary())
    print(*files, sep="\n")
    return files


if __name__ == "__main__":
    command("figures", FiguresConfig, figures)
