"""Tokens to text: as they come, as a continuation of a prompt, or a single one."""

from collections.abc import Callable, Sequence

from data.tokenizers.tokenizer import Tokenizer


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


def continuation(tokenizer: Tokenizer, prompt: Sequence[int], new: Sequence[int]) -> str:
    """The text that new tokens add to a prompt's; the end-of-text token says nothing."""
    stream = TextStream(tokenizer.decode, prompt)
    return stream.push(new) + stream.rest()


def plain_text(tokenizer: Tokenizer, i: int) -> str:
    """A token's text, for files that programs read; bytes that are no whole character become U+FFFD."""
    piece = piece_of(tokenizer, i)
    return piece.decode("utf-8", errors="replace") if piece else name_of(tokenizer, i)


def piece_of(tokenizer: Tokenizer, i: int) -> bytes:
    """As the tokenizer's; none of an id that it does not have: a model's vocabulary may be padded."""
    return tokenizer.piece(i) if i < tokenizer.vocab_size else b""


def name_of(tokenizer: Tokenizer, i: int) -> str:
    """What to call a token that has no text."""
    return (tokenizer.name(i) if i < tokenizer.vocab_size else "") or f"token {i}"
