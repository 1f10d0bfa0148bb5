"""The numbers behind the lens: as JSON for programs and the page, and as lines for a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from textwrap import fill
from typing import Any, NamedTuple

from data.tokenizers.tokenizer import Tokenizer
from eval.depth.lens import Predictions, layers_needed, settled_share
from eval.prompts.text import plain_text

DIGITS = 5


class Reading(NamedTuple):
    """What was read, and what the exits predicted."""

    tokens: Sequence[int]
    """All that was read."""
    n_generated: int
    """So many of the last positions predict what was generated; the token of the very last is not read any more."""
    first: int
    """Predictions are of this position and those after it."""
    predictions: Predictions


@dataclass(frozen=True, kw_only=True)
class LensRecord:
    """What the lens shows. docs/pages.md describes the keys, which are the names of the fields.

    Letters: L layers, T positions, K best tokens.
    """

    n_layers: int
    first_position: int
    n_generated: int
    tokens: list[int]
    """[T]"""
    layers_needed: list[int]
    """[T], the first layer from which on the prediction stays the last layer's."""
    mean_layers_needed: float
    mean_layers_needed_generated: float | None
    """Over the positions that predict generated tokens; None without any."""
    settled_share: list[float]
    """[L], the share of positions that need no more than each layer."""
    top_ids: list[list[list[int]]]
    """[L, T, K]"""
    top_probabilities: list[list[list[float]]]
    """[L, T, K]"""
    last_layers_choice: list[list[float]]
    """[L, T], the probability that each exit gives to the last layer's prediction."""
    text: dict[str, str]
    """Each id that occurs, as text."""

    def as_json(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """What the .json holds: the facts (checkpoint, machine, code) and the fields."""
        return {**facts, **asdict(self)}


def lens_record(tokenizer: Tokenizer, reading: Reading) -> LensRecord:
    """The numbers of a reading."""
    tokens, n_generated, first, found = reading
    n_layers = len(found.ids)
    needed = layers_needed(found.ids[..., 0])
    generated = needed.tolist()[-n_generated:] if n_generated else []
    ids = list(tokens[first:])
    return LensRecord(
        n_layers=n_layers,
        first_position=first,
        n_generated=n_generated,
        tokens=ids,
        layers_needed=needed.tolist(),
        mean_layers_needed=mean(needed.tolist()),
        mean_layers_needed_generated=mean(generated) if generated else None,
        settled_share=settled_share(needed, n_layers),
        top_ids=found.ids.tolist(),
        top_probabilities=_rounded(found.probabilities.tolist()),
        last_layers_choice=_rounded(found.last_layers_choice.tolist()),
        text={str(i): plain_text(tokenizer, i) for i in sorted({*ids, *found.ids.flatten().tolist()})},
    )


def summary_lines(found: LensRecord) -> str:
    """Layers needed on average, and for each layer the share of tokens that need no more."""
    generated = found.mean_layers_needed_generated
    text = (
        f"layers needed on average: {found.mean_layers_needed:.2f} of {found.n_layers} ({len(found.tokens)} positions)"
    )
    if generated is not None:
        text += f"; for what was generated: {generated:.2f}"
    shares = [f"{layer}:{share:.0%}" for layer, share in enumerate(found.settled_share, 1)]
    return text + "\n" + fill("settled by layer  " + "  ".join(shares), 100, subsequent_indent="  ")


def _rounded(x: Any) -> Any:
    return [_rounded(part) for part in x] if isinstance(x, list) else round(x, DIGITS)
