"""All figures of the same arms: what each needs, their files, and the numbers that were drawn."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conf.provenance import code_revision
from conf.run_folders import run_folders
from data.files import write_whole
from eval.config import Mode
from eval.figure.arms import Arm, arms_by_recipe, named_arms
from eval.figure.by_exit import quality_by_exit
from eval.figure.comparable import check_comparable
from eval.figure.config import FigureName, FiguresConfig, NoNumbersError
from eval.figure.draw import count, draw
from eval.figure.dropout import dropout_schedules
from eval.figure.over_tokens import perplexity_over_tokens
from eval.figure.panel import Drawn
from eval.figure.recipe_table import RecipeTable, for_csv, recipe_table
from eval.figure.recipe_table import markdown as recipe_table_text
from eval.figure.run import Run
from eval.figure.speed_plot import speedups
from eval.figure.speed_rows import SpeedRow, speed_rows
from eval.figure.speed_table import every_setting, latex, markdown
from eval.figure.style import save
from eval.figure.task_scores import task_scores
from eval.results.csv_file import write_csv


def arms_of(config: FiguresConfig) -> list[Arm]:
    """The arms that the configuration names, of comparable runs. Raises ConfigError."""
    if config.arms:
        arms = named_arms({name: _runs(paths, f"arms.{name}") for name, paths in config.arms.items()})
    else:
        arms = arms_by_recipe(_runs(config.runs, "runs"))
    check_comparable([run for arm in arms for run in arm.runs])
    return arms


def _runs(named: Sequence[str], key: str) -> list[Run]:
    return [Run.read(folder) for folder in run_folders(named, key)]


@dataclass
class Album:
    """Figures as numbers, until they are saved."""

    config: FiguresConfig
    arms: Sequence[Arm]
    drawn: dict[FigureName, Drawn] = field(default_factory=dict)
    speed: list[SpeedRow] = field(default_factory=list)
    recipes: RecipeTable | None = None

    def add(self, name: FigureName) -> None:
        """Work out the numbers of a figure. Raises NoNumbersError where the runs do not have them, and ConfigError."""
        config, arms = self.config, self.arms
        match name:
            case FigureName.by_exit:
                scores = task_scores(config.exits, [run for arm in arms for run in arm.runs])
                self.drawn[name] = quality_by_exit(arms, scores, config.step, config.spread)
            case FigureName.over_tokens:
                self.drawn[name] = perplexity_over_tokens(arms, config.spread)
            case FigureName.dropout:
                self.drawn[name] = dropout_schedules(arms, config.spread)
            case FigureName.recipes:
                self.recipes = recipe_table(arms, config.spread)
            case FigureName.speed:
                self.speed = speed_rows(config.speed, arms, config.spread)
                if not any(row.setting.mode == Mode.self_speculative for row in self.speed):
                    raise NoNumbersError(
                        "speed: no result of self-speculation in the folders of the runs; make some with eval.benchmark"
                        " or eval.sweep, or name the files with 'speed=[PATH]'"
                    )
                self.drawn[name] = speedups(self.speed, config.spread)

    def save(self, folder: Path) -> list[Path]:
        """Write all files; returns their paths. Older ones are replaced."""
        files = [file for name, its in self.drawn.items() for file in save(draw(its), folder / name.value)]
        if FigureName.speed in self.drawn:
            spread = self.config.spread
            tables = {"md": markdown(self.speed, spread), "tex": latex(self.speed, spread)}
            for suffix, text in tables.items():
                files.append(folder / f"{FigureName.speed.value}.{suffix}")
                write_whole(files[-1], text.encode())
            files.append(folder / f"{FigureName.speed.value}.csv")
            write_csv(files[-1], every_setting(self.speed))
        if self.recipes is not None:
            files += [folder / f"{FigureName.recipes.value}.{suffix}" for suffix in ("md", "csv")]
            write_whole(files[-2], recipe_table_text(self.recipes).encode())
            write_csv(files[-1], for_csv(self.recipes))
        files.append(folder / "figures.json")
        write_whole(files[-1], (json.dumps(self._numbers(), indent=1) + "\n").encode())
        return files

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to save."""
        return not self.drawn and self.recipes is None

    def summary(self) -> str:
        """The arms and their runs, a line each."""
        return "\n".join(
            f"{arm.name}, {count(length)} tokens: n = {len(runs)}: {', '.join(str(run.folder) for run in runs)}"
            for arm in self.arms
            for length in arm.lengths
            for runs in [arm.of_length(length)]
        )

    def _numbers(self) -> dict[str, object]:
        return {
            "commit": code_revision(),
            "spread": self.config.spread.value,
            "arms": {arm.name: [str(run.folder) for run in arm.runs] for arm in self.arms},
            "captions": {name.value: its.caption for name, its in self.drawn.items()},
            "points": [{"figure": name.value} | row for name, its in self.drawn.items() for row in its.as_json()],
        }
