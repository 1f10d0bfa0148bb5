"""Tokens to text as they come, a few at a time."""

from collections.abc import Callable, Sequence


class TextStream:
    """Text of tokens that come a few at a time; bytes that are not a whole character yet are held back."""

    # As many tokens before the new ones are decoded with them, because a tokenizer may treat the first ones otherwise.
    CONTEXT = 8

    def __init__(self, decode: Callable[[list[int]], str], prompt: Sequence[int]) -> None:
        self.decode = decode
        self.before = list(prompt)
        self.pending: list[int] = []
        self._shorten()

    def push(self, tokens: Sequence[int]) -> str:
        """The text that is complete with these tokens."""
        self.pending += tokens
        text = self.held_back()
        # A character is at most 4 bytes: what still lacks one after more tokens than that is no UTF-8 at all.
        if text.endswith("\ufffd") and len(self.pending) <= self.CONTEXT:
            return ""
        self.before, self.pending = self.before + self.pending, []
        self._shorten()
        return text

    def rest(self) -> str:
        """What was held back; nothing is any more."""
        text, self.pending = self.held_back(), []
        return text

    def held_back(self) -> str:
        """The text of the tokens that are held back; U+FFFD stands for bytes of an unfinished character."""
        return self.decode(self.before + self.pending)[self._length :] if self.pending else ""

    def _shorten(self) -> None:
        """Keep the last few tokens before the new ones, more if those say nothing (as end-of-text tokens do)."""
        last, text = self.before[-self.CONTEXT :], self.decode(self.before[-self.CONTEXT :])
        if not text:
            last, text = self.before, self.decode(self.before)
        self.before, self._length = last, len(text)
