"""Arms side by side: what the last layer paid, and what exits after a quarter, half and three quarters are worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval.figure.arms import BASELINE, Arm, kind_of
from eval.figure.config import NoNumbersError, Spread
from eval.figure.draw import count
from eval.figure.run import Run
from eval.figure.spread import Band, band, in_words
from eval.results.columns import piped
from eval.results.row import flat
from models.exits import exit_name

LOSS, AGAINST = "loss", "against"
PREDICTED = ("predicted_speedup_greedy", "predicted_speedup")


@dataclass(frozen=True, kw_only=True)
class RecipeRow:
    """The last validations of an arm's runs of one length, over its seeds."""

    arm: str
    tokens: int
    n: int
    numbers: dict[str, Band]
    """`loss` of the last layer in nats per token; `against`, its ratio to the reference arm's less 1; `NAME_EXIT` for
    perplexity, agreement and acceptance of exits; the predicted speed-ups."""


@dataclass(frozen=True, kw_only=True)
class RecipeTable:
    """A row for each arm and length, and what they are of."""

    rows: Sequence[RecipeRow]
    reference: str
    """The arm that the others' last layers are compared with: plain training, or else the first."""
    exits: Sequence[int]
    caption: str


def recipe_table(arms: Sequence[Arm], spread: Spread) -> RecipeTable:
    """Every number is of the validation after the last step.

    The last layer is compared with the reference of the same seed, if it has it (the noise that both share falls out),
    else with the mean of all; and with one of as many tokens, if there is one, else with its longest.

    Raises ConfigError for a run that is not finished, NoNumbersError for fewer than two arms.
    """
    if len(arms) < 2:
        raise NoNumbersError("figures: recipes needs two arms or more; there is only " + arms[0].name)
    reference = next((arm for arm in arms if kind_of(arm.runs[0]) == BASELINE), arms[0])
    validations = [run.validation(None) for arm in arms for run in arm.runs]
    exits = [e for e in _quarters(arms[0].runs[0].n_layers) if e in validations[0].losses]
    rows = [
        RecipeRow(arm=arm.name, tokens=length, n=len(runs), numbers=_numbers(runs, reference, exits, spread))
        for arm in arms
        for length in arm.lengths
        for runs in [arm.of_length(length)]
    ]
    amounts = sorted({validation.held_out_tokens for validation in validations})
    caption = (
        f"{' to '.join(f'{a:,}' for a in dict.fromkeys((amounts[0], amounts[-1])))} held-out tokens after the last step"
        f" of each run; {in_words(spread, [row.n for row in rows]).replace('band', '[ ]')}"
    )
    return RecipeTable(rows=rows, reference=reference.name, exits=exits, caption=caption)


def markdown(table: RecipeTable) -> str:
    """A table for people: one line for each arm and length."""
    said = " / ".join(map(str, table.exits))
    header = ["recipe", "tokens", "seeds", "last layer: loss", f"against {table.reference}"]
    header += [f"perplexity after {said}", f"greedy agreement after {said}", f"acceptance after {said}"]
    header += ["predicted speed-up, greedy", "drawn"]
    lines = [header]
    for row in table.rows:
        numbers = row.numbers
        cells = [row.arm, count(row.tokens), str(row.n), numbers[LOSS].text(".4f")]
        cells.append("" if row.arm == table.reference else numbers[AGAINST].text("+.2%"))
        for name, form in (("perplexity", ".1f"), ("agreement", ".1%"), ("acceptance", ".1%")):
            found = [numbers.get(f"{name}_{e}") for e in table.exits]
            cells.append(" / ".join("-" if b is None else format(b.mean, form) for b in found))
        cells += [numbers[name].text(".2f") if name in numbers else "-" for name in PREDICTED]
        lines.append(cells)
    return "\n".join([*piped(lines), "", table.caption[0].upper() + table.caption[1:] + "."]) + "\n"


def for_csv(table: RecipeTable) -> list[dict[str, Any]]:
    """NAME, NAME_low and NAME_high of each number."""
    return [
        {"arm": row.arm, "tokens": row.tokens, "n": row.n}
        | flat({name: found.estimate for name, found in row.numbers.items()})
        for row in table.rows
    ]


def _quarters(n_layers: int) -> list[int]:
    return sorted({max(1, round(n_layers * share)) for share in (0.25, 0.5, 0.75)} - {n_layers})


def _numbers(runs: Sequence[Run], reference: Arm, exits: Sequence[int], spread: Spread) -> dict[str, Band]:
    validations = [run.validation(None) for run in runs]
    losses = [v.losses[runs[0].n_layers] for v in validations]
    found = {LOSS: band(losses, spread), AGAINST: band(_against(runs, reference), spread)}
    for e in exits:
        found[f"perplexity_{e}"] = band([v.losses[e] for v in validations], spread).exp()
    names = {f"{name}_{e}": f"{name}/{exit_name(e)}" for name in ("agreement", "acceptance") for e in exits}
    for name, key in (names | {name: name for name in PREDICTED}).items():
        if all(key in v.other for v in validations):
            found[name] = band([v.other[key] for v in validations], spread)
    return found


def _against(runs: Sequence[Run], reference: Arm) -> list[float]:
    length, last = runs[0].total_tokens, runs[0].n_layers
    others = reference.of_length(length if length in reference.lengths else reference.lengths[-1])
    of_seed = {run.seed: run.validation(None).losses[last] for run in others}
    mean = sum(of_seed.values()) / len(of_seed)
    return [run.validation(None).losses[last] / of_seed.get(run.seed, mean) - 1 for run in runs]
