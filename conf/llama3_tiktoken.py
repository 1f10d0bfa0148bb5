"""Llama 3's tiktoken file: lines "base64 rank", and what it does not say itself."""

import base64
import re

# The file does not say how text is split into words before it is merged, nor what follows its ranks: Llama 3's facts.
SPLIT = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
N_SPECIAL = 256
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
_RANK = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,9})\r?")


def is_tiktoken(content: bytes) -> bool:
    """Whether most of the first lines are ranks; a SentencePiece model, often of the same name, is binary."""
    lines = content[:4096].splitlines()
    return 2 * sum(bool(_RANK.fullmatch(line)) for line in lines) > len(lines)


def read_ranks(content: bytes, name: str) -> dict[bytes, int]:
    """Token -> rank, in the order of the ranks.

    Raises ValueError, in one line, unless the ranks are 0 to n - 1 and all bytes have one.
    """
    ranks: dict[bytes, int] = {}
    seen: set[int] = set()
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            token, rank = _token_and_rank(line)
            if token in ranks or rank in seen:
                raise ValueError(f"{'its token' if token in ranks else f'rank {rank}'} occurs twice")
        except ValueError as error:
            raise ValueError(f"{name}:{number}: not a tiktoken rank ({error}); get the file again") from None
        ranks[token] = rank
        seen.add(rank)
    if any(bytes([b]) not in ranks for b in range(256)):
        raise ValueError(
            f"{name}: not all 256 bytes have a rank, so some text could not be written; get the file again"
        )
    if max(seen) >= len(ranks):
        missing = next(i for i in range(len(ranks)) if i not in seen)
        raise ValueError(f"{name}: no token has rank {missing}, but one has {max(seen)}; get the file again")
    return dict(sorted(ranks.items(), key=lambda item: item[1]))


def _token_and_rank(line: bytes) -> tuple[bytes, int]:
    found = _RANK.fullmatch(line)
    if not found:
        shown = line[:40].decode("ascii", errors="backslashreplace").strip()
        raise ValueError(f"{shown!r} is not base64 and a number")
    return base64.b64decode(found[1], validate=True), int(found[2])
