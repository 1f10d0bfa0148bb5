"""Llama 3's tiktoken file as the tokenizers library's tokenizer with the same ids."""

from itertools import pairwise
from typing import Any

from conf.llama3_tiktoken import BOS, EOS, N_SPECIAL, SPLIT

_NAMED = {
    0: BOS,
    1: EOS,
    4: "<|finetune_right_pad_id|>",
    5: "<|step_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
    11: "<|image|>",
}


def special_tokens() -> list[str]:
    """Names of what follows the ranks, in order; those without a use are numbered."""
    unnamed = iter(range(N_SPECIAL))
    return [_NAMED.get(i) or f"<|reserved_special_token_{next(unnamed)}|>" for i in range(N_SPECIAL)]


def fast_tokenizer(ranks: dict[bytes, int]) -> Any:
    """A tokenizers.Tokenizer with the splits, merges and special tokens of `ranks`; bytes are spelled as characters."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    spell = _spelling()
    vocab = {token.decode("latin-1").translate(spell): rank for token, rank in ranks.items()}
    pairs = [[part.decode("latin-1").translate(spell) for part in _last_merge(token, ranks)] for token in ranks]
    merges = [(pair[0], pair[1]) for pair in pairs if pair]
    # tiktoken, too, takes a word that is a token as that token, whether or not merges lead to it.
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special_tokens()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, len(ranks))]
    )
    return tokenizer


def _spelling() -> dict[int, int]:
    """Byte -> character of byte-level BPE: itself where it can be seen, else one of those after 255, in order."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [b for b in range(256) if b not in seen]
    return {b: 256 + i for i, b in enumerate(hidden)}


def _last_merge(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two parts that merging makes the token of; none for a byte and for what merging does not lead to.

    tiktoken merges the two neighbours whose union has the lowest rank, the first ones of equals. What happens inside
    a token until it is whole does not depend on its neighbours, so one merge per token says all.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        unions = [ranks.get(a + b, len(ranks)) for a, b in pairwise(parts)]
        best = min(unions)
        if best == len(ranks):
            return []
        i = unions.index(best)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts if len(parts) == 2 else []
