"""The numbers behind the lens: as JSON for programs and the page, and in words for a terminal."""

from collections.abc import Mapping, Sequence
from statistics import mean
from textwrap import fill
from typing import Any, NamedTuple

from data.tokenizers.tokenizer import Tokenizer
from eval.depth.lens import Predictions, layers_needed, settled_share
from eval.text import plain_text

DIGITS = 5


class Looked(NamedTuple):
    """What was looked at."""

    tokens: Sequence[int]
    """All that was read."""
    n_generated: int
    """So many of the last positions predict what was generated; the token of the very last is not read any more."""
    first: int
    """Predictions are of this position and those after it."""
    predictions: Predictions


def record(tokenizer: Tokenizer, looked: Looked, stated: Mapping[str, Any]) -> dict[str, Any]:
    """What `json=` writes; its keys are described in docs/pages.md."""
    tokens, n_generated, first, found = looked
    n_layers = len(found.ids)
    needed = layers_needed(found.ids[..., 0])
    generated = needed.tolist()[-n_generated:] if n_generated else []
    shown = list(tokens[first:])
    return {
        **stated,
        "n_layers": n_layers,
        "first_position": first,
        "n_generated": n_generated,
        "tokens": shown,
        "layers_needed": needed.tolist(),
        "mean_layers_needed": mean(needed.tolist()),
        "mean_layers_needed_generated": mean(generated) if generated else None,
        "settled_share": settled_share(needed, n_layers),
        "top_ids": found.ids.tolist(),
        "top_probabilities": _rounded(found.probabilities.tolist()),
        "last_layers_choice": _rounded(found.last_layers_choice.tolist()),
        "text": {str(i): plain_text(tokenizer, i) for i in sorted({*shown, *found.ids.flatten().tolist()})},
    }


def spoken(rows: Mapping[str, Any]) -> str:
    """Layers needed on average, and the share of tokens settled by each layer."""
    n_layers, generated = rows["n_layers"], rows["mean_layers_needed_generated"]
    text = f"layers needed on average: {rows['mean_layers_needed']:.2f} of {n_layers} ({len(rows['tokens'])} positions)"
    if generated is not None:
        text += f"; for what was generated: {generated:.2f}"
    shares = [f"{layer}:{share:.0%}" for layer, share in enumerate(rows["settled_share"], 1)]
    return text + "\n" + fill("settled by layer  " + "  ".join(shares), 100, subsequent_indent="  ")


def _rounded(x: Any) -> Any:
    return [_rounded(part) for part in x] if isinstance(x, list) else round(x, DIGITS)
