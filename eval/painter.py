"""A generation on a terminal, coloured by who supplied each token."""

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from eval.config import Color
from eval.engine.policy import Autoregressive, DraftModel, EarlyExit, Policy, PromptLookup, SelfSpeculative
from eval.engine.rows import Round

DRAFTED, FULL, DIM, PLAIN = "\x1b[32m", "\x1b[1;35m", "\x1b[2m", "\x1b[0m"


class Painter:
    """Writes text to a terminal in colours, or to anything else without."""

    def __init__(self, color: Color, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        terminal = self.out.isatty() and "NO_COLOR" not in os.environ
        self.on = color is Color.always or (color is Color.auto and terminal)

    def prompt(self, text: str) -> None:
        """The text that was given."""
        self._write(text, DIM)

    def drafted(self, text: str) -> None:
        """Text of tokens that were drafted and accepted."""
        self._write(text, DRAFTED)

    def full(self, text: str) -> None:
        """Text of tokens of the model that decides."""
        self._write(text, FULL)

    def end(self, text: str) -> None:
        """The last text, and the end of the line."""
        self._write(text + "\n", PLAIN)

    def paint(self, text: str, color: str) -> str:
        """Text in a colour."""
        return f"{color}{text}{PLAIN}" if self.on and text else text

    def _write(self, text: str, color: str) -> None:
        if text:
            self.out.write(self.paint(text, color))
            self.out.flush()


def speed_line(rounds: Sequence[Round], policy: Policy, n_layers: int, seconds: float, painter: Painter) -> str:
    """What a generation took, and what the colours mean."""
    n_tokens = sum(len(r.tokens) for r in rounds)
    text = f"{n_tokens} tokens in {seconds:.2f} s ({n_tokens / seconds:,.0f} tokens/s)"
    if isinstance(policy, Autoregressive):
        return f"{text}, all by {n_layers} layers"
    if isinstance(policy, EarlyExit):
        return f"{text}, all by the first {policy.exit_layer} of {n_layers} layers"
    drafts = [r for r in rounds if r.n_drafted]
    n_drafted, n_accepted = sum(r.n_drafted for r in drafts), sum(r.n_accepted for r in drafts)
    rate = f"{n_accepted / n_drafted:.0%} of {n_drafted} drafts accepted" if drafts else "nothing drafted"
    drafted = painter.paint(_drafted(drafts, policy), DRAFTED)
    return f"{text}; {drafted} ({rate}), {painter.paint(f'supplied by all {n_layers}', FULL)}"


def _drafted(drafts: Sequence[Round], policy: Policy) -> str:
    """Who drafted how many tokens at a time; means where rounds differ."""
    if isinstance(policy, SelfSpeculative | DraftModel):
        return f"drafted by {policy.exit_layer} layers, {policy.num_speculations} at a time"
    n = max(1, len(drafts))
    exits, d = sum(r.exit_layer or 0 for r in drafts) / n, sum(r.n_drafted for r in drafts) / n
    if isinstance(policy, PromptLookup):
        return f"drafted from the text before, {d:.2g} at a time on average"
    return f"drafted by {exits:.3g} layers, {d:.2g} at a time on average"
