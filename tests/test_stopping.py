"""Where a text ends: stop strings are found as in the whole text, by decoding its last few tokens alone."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluation import Bytes
from test_json_tokenizer import byte_level_bpe

from data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from eval.engine.stopping import StopRule
from eval.engine.text_stream import TextStream

TEXT = "def naïve(漢字, \U0001f600):\n    return  '  é\u0301 \U0001f468\u200d\U0001f469' # ü\n\nclass A:\n\tpass"


@pytest.fixture(params=["sentencepiece", "byte-level BPE", "bytes"])
def tokenizer(request: pytest.FixtureRequest, trained: Path, tmp_path: Path) -> Tokenizer:
    if request.param == "bytes":
        return Bytes()  # type: ignore[return-value]
    folder = trained if request.param == "sentencepiece" else byte_level_bpe(tmp_path)
    return load_tokenizer(folder)


def end_of(ids: list[int], strings: tuple[str, ...], decode: Callable[[list[int]], str]) -> int:
    """How many tokens a text has with one of the strings in it, by decoding all of it at each token."""
    return next((n for n in range(1, len(ids)) if any(s in decode(ids[:n]) for s in strings)), len(ids))


def test_strings_are_found_where_the_whole_text_has_them(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    found = 0
    for trial in range(60):
        ids = tokenizer.encode(TEXT)
        if trial % 2:  # other tokens than a text's own, among them unfinished characters and tokens without text
            ids = [t if rng.random() < 0.8 else rng.randrange(tokenizer.vocab_size) for t in ids]
        whole = tokenizer.decode(ids)
        strings = []
        for _ in range(rng.randrange(1, 4)):
            start = rng.randrange(len(whole))
            strings.append(whole[start : start + rng.randrange(1, 9)].replace("\ufffd", "") or "zz")
        rule = StopRule(max_new_tokens=len(ids), strings=tuple(strings), decode=tokenizer.decode)
        stopping, text, ended = rule.begin(), list[int](), False
        while not ended:
            n = rng.randrange(1, 7)
            new, ended = stopping.cut(ids[len(text) : len(text) + n])
            text += new
        assert len(text) == end_of(ids, rule.strings, tokenizer.decode), strings
        found += len(text) < len(ids)
    assert found > 10


def test_the_effort_for_a_token_does_not_grow_with_the_text() -> None:
    decoded = 0

    def decode(ids: list[int]) -> str:
        nonlocal decoded
        decoded += len(ids)
        return "".join(map(chr, ids))

    stopping = StopRule(max_new_tokens=4000, strings=("zebra", "\n\n"), decode=decode).begin()
    for _ in range(2000):
        assert stopping.cut([97, 98]) == ([97, 98], stopping.n_tokens == 4000)
    assert decoded < 4000 * 4 * TextStream.CONTEXT


def test_the_first_of_eos_string_and_limit_ends_a_text() -> None:
    rule = StopRule(max_new_tokens=5, eos_ids=frozenset({0}), strings=("bc",), decode=lambda i: "".join(map(chr, i)))
    assert rule.begin().cut([97, 98, 0, 99]) == ([97, 98, 0], True)
    assert rule.begin().cut([97, 98, 99, 0]) == ([97, 98, 99], True)
    stopping = rule.begin()
    assert stopping.cut([98, 98, 98]) == ([98, 98, 98], False)
    assert stopping.cut([99, 98]) == ([99], True), "the string began in the round before"
    assert rule.begin().cut([98] * 7) == ([98] * 5, True)
