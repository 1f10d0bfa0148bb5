"""Texts of several ways to decode side by side, as a page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from data.tokenizers.tokenizer import Tokenizer
from eval.engine.policy import Drafting
from eval.exactness.compared import ModeRow
from eval.exactness.side_by_side import Side
from eval.pages.page import page
from eval.pages.token_display import display_alone, display_in_text


def compare_page(
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    results: Sequence[Sequence[Side]],
    rows: Sequence[ModeRow],
    facts: Mapping[str, Any],
) -> str:
    """The HTML.

    Args:
        tokenizer: of the ids.
        prompts: that were decoded.
        results: the sides of each prompt, autoregressive decoding first.
        rows: the same summed up over the prompts, a row for each way to decode.
        facts: checkpoint, machine and code, which stand below the title.
    """
    data = {
        "rows": [asdict(row) for row in rows],
        "prompts": [
            {
                "prompt": display_in_text(tokenizer, prompt),
                "sides": [_side(tokenizer, prompt, side, sides[0]) for side in sides],
            }
            for prompt, sides in zip(prompts, results, strict=True)
        ],
    }
    return page(view="compare", title="Side by side", facts=facts, data=data)


def _side(tokenizer: Tokenizer, prompt: Sequence[int], side: Side, autoregressive: Side) -> dict[str, Any]:
    at, tokens, reference = side.differs_at, side.run.tokens, autoregressive.run.tokens
    speculative = isinstance(side.policy, Drafting)
    n_drafted = sum(r.n_drafted for r in side.run.rounds)
    return {
        "shown": display_in_text(tokenizer, [*prompt, *tokens])[len(prompt) :],
        "drafted": [i < r.n_accepted for r in side.run.rounds for i in range(len(r.tokens))] if speculative else None,
        "seconds": side.run.seconds,
        "layers_per_token": side.layers_per_token,
        "acceptance": sum(r.n_accepted for r in side.run.rounds) / n_drafted if n_drafted else None,
        "must_be_same": speculative,
        "differs_at": at,
        "near_tie": side.near_tie,
        "instead_of": display_alone(tokenizer, reference[at]) if at is not None and at < len(reference) else None,
    }
