"""When a generation ends: an end token, a stop string anywhere in the new text, enough tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eval.engine.text_stream import TextStream


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """What ends a generation. Raises ValueError for impossible values."""

    max_new_tokens: int
    """At most so many tokens."""
    eos_ids: frozenset[int] = frozenset()
    """Tokens that end the text; the token itself is the last one."""
    strings: tuple[str, ...] = ()
    """Strings that end the text; the token that completes one is the last."""
    decode: Callable[[list[int]], str] | None = None
    """Text of tokens; needed for `strings`."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: must be at least 1")
        if self.strings and self.decode is None:
            raise ValueError("stop strings need a tokenizer")

    def begin(self) -> "Stopping":
        """The rule for one text, which has no token yet."""
        return Stopping(self)


class Stopping:
    """How far one text is from its end."""

    def __init__(self, rule: StopRule) -> None:
        self.rule, self.n_tokens = rule, 0
        self._stream = TextStream(rule.decode, []) if rule.strings and rule.decode else None
        self._tail, self._kept = "", max(map(len, rule.strings), default=1) - 1

    def cut(self, new: Sequence[int]) -> tuple[list[int], bool]:
        """The new tokens up to the end of the text, and whether that is reached.

        Args:
            new: tokens of this round, at least one; what is returned of them belongs to the text from now on.
        """
        new = list(new[: self.rule.max_new_tokens - self.n_tokens])
        for i, token in enumerate(new):
            if token in self.rule.eos_ids or self._completes_a_string(token):
                new, ended = new[: i + 1], True
                break
        else:
            ended = self.n_tokens + len(new) == self.rule.max_new_tokens
        self.n_tokens += len(new)
        return new, ended

    def _completes_a_string(self, token: int) -> bool:
        """Whether the text holds a stop string with this token; it is the last characters that can still become one."""
        if self._stream is None:
            return False
        complete = self._stream.push([token])
        text = self._tail + (complete or self._stream.held_back())
        if any(s in text for s in self.rule.strings):
            return True
        if complete and self._kept:
            self._tail = text[-self._kept :]
        return False
