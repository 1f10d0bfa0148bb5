"""Runs that stand in one picture must be of the same model, text, tokenizer and validation."""

from collections.abc import Mapping, Sequence
from typing import Any

from conf.strict import ConfigError
from eval.figure.run import Run

OF_ALL = (
    "train.seq_len",
    "data.packing",
    "data.validation_fraction",
    "data.validation_documents",
    "validation.tokens",
    "validation.final_tokens",
)
OF_A_STREAM = ("path", "subset", "split", "revision")
OF_A_SOURCE = ("format", "weight")


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise ConfigError, which names the first key that differs and two runs that it differs between."""
    first = _facts(runs[0])
    for run in runs[1:]:
        facts = _facts(run)
        for key in [*first, *(key for key in facts if key not in first)]:
            if first.get(key) != facts.get(key):
                raise ConfigError(
                    f"{key}: {_said(first.get(key))} in {runs[0].folder}, {_said(facts.get(key))} in {run.folder};"
                    " their numbers cannot be compared, leave one out"
                )


def _facts(run: Run) -> dict[str, Any]:
    """What must be the same, by the user's keys."""
    config = run.config
    facts = {f"model.{key}": value for key, value in config["model"].items() if key != "name"}
    for key in OF_ALL:
        section, _, name = key.partition(".")
        facts[key] = (config.get(section) or {}).get(name)
    facts["validation.exit_layers"] = tuple((config.get("validation") or {}).get("exit_layers") or ())
    facts["data.tokenizer"] = run.corpus.get("tokenizer")
    digests: Mapping[str, str] = run.corpus.get("digests") or {}
    for name, source in (config["data"].get("sources") or {}).items():
        keys = OF_A_SOURCE if name in digests else (*OF_A_STREAM, *OF_A_SOURCE)
        facts |= {f"data.sources.{name}.{key}": source.get(key) for key in keys}
        facts[f"data.sources.{name}'s text"] = digests.get(name)
    facts["held-out tokens (corpus.json)"] = run.corpus.get("validation_tokens")
    return facts


def _said(value: Any) -> str:
    return "missing" if value is None else str(value)[:40]
