"""One generation as a page: which tokens were drafted, accepted, rejected, or supplied by the full model."""

from collections.abc import Mapping, Sequence
from typing import Any

from data.tokenizers.tokenizer import Tokenizer
from eval.engine.policy import Policy
from eval.engine.rows import Round
from eval.pages.page import page
from eval.pages.token_display import display_alone, display_in_text
from eval.setting import Setting


def drafts_page(
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    rounds: Sequence[Round],
    policy: Policy,
    n_layers: int,
    seconds: float,
    facts: Mapping[str, Any],
) -> str:
    """The HTML; `seconds` is what the whole generation took, `facts` stand below the title."""
    generated = [token for round_ in rounds for token in round_.tokens]
    shown = display_in_text(tokenizer, [*prompt, *generated])
    setting = Setting.of(policy, n_layers)
    data = {
        "n_layers": n_layers,
        "exit_layer": setting.exit_layer if setting.exit_layer < n_layers else None,
        "num_speculations": setting.num_speculations or None,
        "seconds": seconds,
        "prompt": shown[: len(prompt)],
        "ids": generated,
        "shown": shown[len(prompt) :],
        "rounds": [
            {
                "n_tokens": len(r.tokens),
                "n_drafted": r.n_drafted,
                "n_accepted": r.n_accepted,
                "rejected": [display_alone(tokenizer, i) for i in r.rejected],
                "rejected_ids": list(r.rejected),
            }
            for r in rounds
        ],
    }
    return page(view="drafts", title="Drafted and accepted", facts=facts, data=data)
