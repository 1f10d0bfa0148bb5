"""Llama 3's tiktoken file behind our interface: byte-level BPE, so decode(encode(text)) == text."""

import re
from collections.abc import Iterator

import tiktoken

from conf.llama3_tiktoken import BOS, EOS, N_SPECIAL, SPLIT, read_ranks
from data.config import DataError
from data.tokenizers.document import as_document
from data.tokenizers.sentencepiece_tokenizer import MODEL_FILE

# tiktoken panics at a million blanks in a row, and before 0.13 takes quadratic time for a long word. Llama's own code
# cuts runs after as many characters, too, so the ids are the same.
MAX_RUN = 25_000
_LONG_RUN = re.compile(rf"(?<!\S)\S{{{MAX_RUN + 1},}}|(?<!\s)\s{{{MAX_RUN + 1},}}")
_HALF_RUN = re.compile(rf"\S{{{MAX_RUN // 2}}}|\s{{{MAX_RUN // 2}}}")


class TiktokenTokenizer:
    """Bytes and merges from a file of lines "base64 rank", split as Llama 3 does, and its 256 special tokens."""

    def __init__(self, content: bytes, name: str = MODEL_FILE) -> None:
        """Raises DataError when a line is damaged or the ranks are not complete."""
        self.files = {MODEL_FILE: content}
        try:
            ranks = read_ranks(content, name)
        except ValueError as error:
            raise DataError(str(error)) from None
        self._n_ranks = len(ranks)
        self._tokens = sorted(ranks, key=ranks.__getitem__)
        self._tiktoken = tiktoken.Encoding(name, pat_str=SPLIT, mergeable_ranks=ranks, special_tokens={})
        self.vocab_size = self._n_ranks + N_SPECIAL
        self.bos_id = self._n_ranks  # <|begin_of_text|>
        self.eos_id = self._n_ranks + 1  # <|end_of_text|>

    def encode(self, text: str) -> list[int]:
        """Ids of a text, in which the name of a special token is text like any other."""
        return [i for part in _parts(text) for i in self._tiktoken.encode_ordinary(part)]

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of the beginning of a document, after <|begin_of_text|>."""
        return [self.bos_id, *self.encode(text)]

    def encode_document(self, text: str) -> list[int]:
        """Ids of a whole document, between <|begin_of_text|> and <|end_of_text|>."""
        return as_document(self.encode(text), self.bos_id, self.eos_id)

    def decode(self, ids: list[int]) -> str:
        """The text of ids; special tokens say nothing, part of a character shows as U+FFFD."""
        return b"".join([self._tokens[i] for i in ids if i < self._n_ranks]).decode("utf-8", errors="replace")

    def token_bytes(self) -> list[int]:
        """For each id, how many bytes of text it stands for; special tokens stand for none."""
        return [len(token) for token in self._tokens] + [0] * N_SPECIAL

    def piece(self, i: int) -> bytes:
        """The bytes of text that an id stands for, which need not be whole characters; none of a special token."""
        return self._tokens[i] if i < self._n_ranks else b""

    def name(self, i: int) -> str:
        """What the vocabulary calls an id; special tokens but the two that begin and end a text go by their number."""
        if i < self._n_ranks:
            return self._tokens[i].decode("utf-8", errors="replace")
        names = {self.bos_id: BOS, self.eos_id: EOS}
        return names.get(i, f"<|special_{i - self._n_ranks}|>")


def _parts(text: str) -> Iterator[str]:
    """The text, cut where as many characters follow each other without a blank, or as many blanks."""
    # A run that long covers one of these places and half its length from there on, which is quickly seen.
    half = MAX_RUN // 2
    start = 0
    if any(_HALF_RUN.match(text, i) for i in range(0, len(text) - half, half)):
        for run in _LONG_RUN.finditer(text):
            for cut in range(run.start() + MAX_RUN, run.end(), MAX_RUN):
                yield text[start:cut]
                start = cut
    yield text[start:]
