"""How byte-level tokenizers split a text before they merge: tokenizer.json's description, and GGUF's name of it."""

from collections.abc import Mapping
from typing import Any

from conf.llama3_tiktoken import SPLIT

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_BY_ITS_OWN_RULE = BYTES | {"use_regex": True}


def _by_rule(rule: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, BYTES | {"use_regex": False}]}


KNOWN: dict[str, dict[str, Any]] = {
    "gpt-2": _BY_ITS_OWN_RULE,
    "smollm": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BY_ITS_OWN_RULE]},
    "llama-bpe": _by_rule(SPLIT),
    "qwen2": _by_rule(SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")),
}
"""GGUF's name -> the pre_tokenizer of a tokenizer.json."""
WHOLE_WORDS = ("llama-bpe",)
"""Whose words that are tokens are taken whole, whether or not merges lead to them."""


def name_of(layout: Mapping[str, Any]) -> str | None:
    """GGUF's name for how the content of a tokenizer.json splits; None for a way that has none here."""
    for name, known in KNOWN.items():
        if _plain(layout.get("pre_tokenizer")) == _plain(known):
            whole = bool(layout["model"].get("ignore_merges"))
            return name if whole == (name in WHOLE_WORDS) else None
    return None


def _plain(value: Any) -> Any:
    """Without what does not change the ids, and a sequence of one as that one."""
    if isinstance(value, Mapping):
        parts = value.get("pretokenizers")
        if parts is not None and len(parts) == 1:
            return _plain(parts[0])
        return {key: _plain(inner) for key, inner in value.items() if key != "trim_offsets"}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
