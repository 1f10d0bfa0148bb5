"""The tokenizer inside a GGUF file, as Hugging Face files."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
from gguf import TokenType

from conf.errors import reason
from models.storage.errors import FormatError
from models.storage.gguf.pre_tokenizers import BYTES, KNOWN, WHOLE_WORDS
from models.storage.gguf.vocabulary import BYTE_LEVEL, SENTENCEPIECE, Vocabulary, sentencepiece_model
from models.storage.hf_tokenizer import SpecialIds, write_tokenizer

NONE = ("none", "no_vocab")


def write_gguf_tokenizer(file: Path, folder: Path) -> SpecialIds:
    """Write tokenizer.json and its configuration, and tokenizer.model where the file's pieces are SentencePiece's.

    For a file that says it has none a line says so, and nothing is written. Raises FormatError for a kind that is not
    known.
    """
    try:
        fields = gguf.GGUFReader(file).fields
    except Exception as error:
        raise FormatError(f"{file}: incomplete, damaged or no GGUF file ({reason(error)})") from None
    start = "tokenizer."
    given = {name.removeprefix(start): f.contents() for name, f in fields.items() if name.startswith(start)}
    kind, max_length = given.get("ggml.model"), int(fields["llama.context_length"].contents())
    if kind in NONE:
        print(f"{file}: no tokenizer there, none written", file=sys.stderr)
        return SpecialIds(None, None)
    known = kind == SENTENCEPIECE or (kind == BYTE_LEVEL and given.get("ggml.pre") in KNOWN)
    try:
        if not known:
            return _by_transformers(file, folder)
        vocabulary = _vocabulary(given)
        if kind == SENTENCEPIECE:
            return _write_pieces(vocabulary, folder, max_length)
        return _write_byte_level(vocabulary, folder, max_length)
    except Exception as error:  # tokenizers raises Exception itself
        raise FormatError(f"{file}: its tokenizer cannot be read ({reason(error)})") from None


def _vocabulary(given: Mapping[str, Any]) -> Vocabulary:
    """Raises KeyError or TypeError for keys that are missing or of another type."""
    pieces = given["ggml.model"] == SENTENCEPIECE
    return Vocabulary(
        kind=given["ggml.model"],
        tokens=list(given["ggml.tokens"]),
        types=list(given["ggml.token_type"]),
        scores=list(given["ggml.scores"]) if pieces else [],
        merges=[] if pieces else list(given["ggml.merges"]),
        pre=given.get("ggml.pre", ""),
        # What a SentencePiece model has where nothing is said.
        bos_id=given.get("ggml.bos_token_id", 1 if pieces else None),
        eos_id=given.get("ggml.eos_token_id", 2 if pieces else None),
        unk_id=given.get("ggml.unknown_token_id", 0 if pieces else None),
        adds_bos=bool(given.get("ggml.add_bos_token", pieces)),
        adds_space=bool(given.get("ggml.add_space_prefix", pieces)),
        chat_template=given.get("chat_template"),
    )


def _write_pieces(vocabulary: Vocabulary, folder: Path, max_length: int) -> SpecialIds:
    with TemporaryDirectory() as name:
        model = Path(name) / "tokenizer.model"
        model.write_bytes(sentencepiece_model(vocabulary))
        special = write_tokenizer(model, folder, max_length)
    if vocabulary.chat_template:
        # Its texts have names of tokens for tokens, which SentencePiece itself takes for text.
        (folder / "chat_template.jinja").write_text(vocabulary.chat_template, "utf-8")
        settings = folder / "tokenizer_config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text("utf-8")) | {"split_special_tokens": False}))
        (folder / "tokenizer.model").unlink()
    return special


def _write_byte_level(vocabulary: Vocabulary, folder: Path, max_length: int) -> SpecialIds:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokens = vocabulary.tokens
    fast: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(_layout(vocabulary))),
        bos_token=vocabulary.name(vocabulary.bos_id),
        eos_token=vocabulary.name(vocabulary.eos_id),
        unk_token=vocabulary.name(vocabulary.unk_id),
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    if len(fast) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens are {len(fast)} different ones")
    fast.save_pretrained(folder)
    if vocabulary.chat_template:
        (folder / "chat_template.jinja").write_text(vocabulary.chat_template, "utf-8")
    return SpecialIds(fast.bos_token_id, fast.eos_token_id)


def _layout(vocabulary: Vocabulary) -> dict[str, Any]:
    """The content of a tokenizer.json."""
    whole = {int(TokenType.CONTROL): True, int(TokenType.USER_DEFINED): False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": i, "content": token, **flags, "special": whole[kind]}
        for i, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in whole
    ]
    model = {
        "type": "BPE",
        "vocab": {token: i for i, token in enumerate(vocabulary.tokens)},
        "merges": [merge.split(" ") for merge in vocabulary.merges],
        "ignore_merges": vocabulary.pre in WHOLE_WORDS,
    }
    layout = {"version": "1.0", "added_tokens": added, "pre_tokenizer": KNOWN[vocabulary.pre], "model": model}
    layout |= {"decoder": BYTES | {"use_regex": True}}
    if vocabulary.adds_bos and (bos := vocabulary.name(vocabulary.bos_id)):
        begin: dict[str, Any] = {"SpecialToken": {"id": bos, "type_id": 0}}
        texts: list[dict[str, Any]] = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
        layout["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [begin, texts[0]],
            "pair": [begin, texts[0], begin, texts[1]],
            "special_tokens": {bos: {"id": bos, "ids": [vocabulary.bos_id], "tokens": [bos]}},
        }
    return layout


def _by_transformers(file: Path, folder: Path) -> SpecialIds:
    """Other kinds and other ways to split, as transformers reads them."""
    from transformers import AutoTokenizer

    with TemporaryDirectory() as alone:  # beside other tokenizers' files transformers would read those
        (Path(alone) / file.name).symlink_to(file.resolve())
        tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=file.name)
    tokenizer.save_pretrained(folder)
    return SpecialIds(tokenizer.bos_token_id, tokenizer.eos_token_id)
