"""When a generation ends: an end token, a stop string anywhere in the new text, enough tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


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

    def cut(self, before: Sequence[int], new: list[int]) -> tuple[list[int], bool]:
        """The new tokens up to the end of the text, and whether that is reached.

        Args:
            before: tokens generated so far.
            new: tokens of this round, at least one.
        """
        new = new[: self.max_new_tokens - len(before)]
        for i, token in enumerate(new):
            if token in self.eos_ids or (self.strings and self._completes_a_string([*before, *new[: i + 1]])):
                return new[: i + 1], True
        return new, len(before) + len(new) == self.max_new_tokens

    def _completes_a_string(self, tokens: list[int]) -> bool:
        assert self.decode is not None
        text = self.decode(tokens)
        return any(s in text for s in self.strings)
