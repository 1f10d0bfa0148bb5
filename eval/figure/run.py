"""What a figure needs of a run folder: its configuration, its text and tokenizer, and the course of its numbers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from conf.errors import reason
from conf.metrics_file import METRICS, read_metrics
from conf.run_folders import CONFIG, CORPUS
from conf.strict import ConfigError
from models.exits import exit_layer_of, exit_name

VALIDATION = "val/"
LOSS = f"{VALIDATION}loss/"


class Validation(NamedTuple):
    """One measurement of every exit on held-out text."""

    step: int
    """Optimizer steps before it."""
    held_out_tokens: int
    """How many were measured."""
    losses: Mapping[int, float]
    """Exit layer E, 1..L -> nats per token."""
    other: Mapping[str, float]
    """What else was measured, such as `agreement/exit_02` and `predicted_speedup`."""


@dataclass(frozen=True)
class Run:
    """A run folder. Two of the same folder are equal."""

    folder: Path
    config: Mapping[str, Any]
    corpus: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    """Of metrics.jsonl, in the order of the steps."""

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Raises ConfigError, which names the file, for a folder that no run has left, or whose files are damaged."""
        config = _read(folder / CONFIG, yaml.safe_load)
        corpus = _read(folder / CORPUS, json.loads)
        for section, key in (
            ("model", "n_layers"),
            ("train", "steps"),
            ("layer_dropout", "p_max"),
            ("early_exit", "curriculum"),
        ):
            if key not in (config.get(section) or {}):
                raise ConfigError(
                    f"{folder / CONFIG}: has no {section}.{key}, so that it is no training run's; leave it out"
                )
        try:
            rows = read_metrics(folder / METRICS)
        except OSError as error:
            raise ConfigError(f"{folder / METRICS}: {reason(error)}; the run has not begun, leave it out") from None
        return cls(folder, config, corpus, rows)

    @property
    def n_layers(self) -> int:
        """L."""
        return int(self.config["model"]["n_layers"])

    @property
    def last_step(self) -> int:
        """Steps of the finished run, T."""
        return int(self.config["train"]["steps"])

    @property
    def seed(self) -> int:
        """Of initial weights, data order and dropout."""
        return int(self.config["train"]["seed"])

    @property
    def total_tokens(self) -> int:
        """Training tokens of the finished run."""
        return self.last_step * self._tokens_a_step

    @cached_property
    def validations(self) -> list[Validation]:
        """In the order of the steps."""
        found = []
        for row in self.rows:
            losses = {exit_layer_of(key): float(value) for key, value in row.items() if key.startswith(LOSS)}
            if losses:
                other = {k.removeprefix(VALIDATION): v for k, v in row.items() if k.startswith(VALIDATION)}
                found.append(Validation(int(row["step"]), int(row["val/tokens"]), losses, other))
        return found

    @property
    def course(self) -> list[Validation]:
        """The validations on as much text as the first had; the last one is often on more (validation.final_tokens)."""
        return [v for v in self.validations if v.held_out_tokens == self.validations[0].held_out_tokens]

    def validation(self, step: int | None) -> Validation:
        """The one after a step; None: after the last of the run. Raises ConfigError without it."""
        wanted = step or self.last_step
        if found := [v for v in self.validations if v.step == wanted]:
            return found[-1]
        if not self.validations:
            raise ConfigError(
                f"{self.folder / METRICS}: has no validation; wait for the first one (validation.every), or leave the"
                " run out"
            )
        last = self.validations[-1].step
        if step is None:
            raise ConfigError(
                f"{self.folder}: has come to step {last} of {wanted}; wait for it, leave it out, or set step={last}"
            )
        raise ConfigError(f"step={step}: {self.folder} has no validation of that step; its last one is of step {last}")

    def training_losses(self, exit_layer: int) -> dict[int, float]:
        """Step -> training loss of an exit, nats per token, for the steps whose line has it."""
        key = f"train/loss/{exit_name(exit_layer)}"
        return {int(row["step"]): float(row[key]) for row in self.rows if key in row}

    def tokens_at(self, step: int) -> int:
        """Training tokens that the run had seen after a step."""
        return self._logged_tokens.get(step, step * self._tokens_a_step)

    @cached_property
    def _logged_tokens(self) -> dict[int, int]:
        return {int(row["step"]): int(row["train/tokens"]) for row in self.rows if "train/tokens" in row}

    @property
    def _tokens_a_step(self) -> int:
        train = self.config["train"]
        return int(train["global_batch_size"]) * int(train["seq_len"])


def _read(path: Path, parse: Callable[[str], Any]) -> Mapping[str, Any]:
    """A file that holds a table of keys. Raises ConfigError."""
    try:
        if isinstance(content := parse(path.read_text()), dict):
            return content
        problem = "no table of keys"
    except OSError as error:
        problem = reason(error)
    except (ValueError, yaml.YAMLError) as error:
        problem = f"damaged ({reason(error)})"
    raise ConfigError(f"{path}: {problem}; a run folder has it, leave this one out")
