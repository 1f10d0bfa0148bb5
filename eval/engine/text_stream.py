"""Tokens to text as they come, a few at a time."""

from collections.abc import Callable, Sequence


class TextStream:
    """Text of tokens that come a few at a time; bytes that are not a whole character yet are held back."""

    # As many tokens before the new ones are decoded with them, because a tokenizer may treat the first ones otherwise.
    CONTEXT = 8

    def __init__(self, decode: Callable[[list[int]], str], prompt: Sequence[int]) -> None:
        self.decode = decode
        self.before = list(prompt[-self.CONTEXT :])
        self.pending: list[int] = []

    def push(self, tokens: Sequence[int]) -> str:
        """The text that is complete with these tokens."""
        self.pending += tokens
        text = self._text()
        # A character is at most 4 bytes: what still lacks one after more tokens than that is no UTF-8 at all.
        if text.endswith("\ufffd") and len(self.pending) <= self.CONTEXT:
            return ""
        self.before, self.pending = (self.before + self.pending)[-self.CONTEXT :], []
        return text

    def rest(self) -> str:
        """What was held back."""
        text, self.pending = self._text(), []
        return text

    def _text(self) -> str:
        return self.decode(self.before + self.pending)[len(self.decode(self.before)) :]
