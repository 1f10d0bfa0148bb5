"""A SentencePiece model or tiktoken file as the files of which transformers' AutoTokenizer makes the same tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece as spm

from conf.errors import reason
from conf.llama3_tiktoken import BOS, EOS, SPLIT, is_tiktoken, read_ranks
from models.storage.errors import FormatError
from models.storage.hf_tiktoken import fast_tokenizer

SPACE_MARK = "\u2581"
# What must come out alike before a converted tokenizer is written.
PROBES = (
    "def f(x: int = 0) -> str:\n\treturn f'{x:>4}'  # ok\r\n",
    "  two spaces,   three\n\n\n    and 12345.678e-9 numbers",
    "naïve café — “quotes” … 漢字かな \U0001f600\U0001f1e9\U0001f1ea e\u0301 \u200b \xa0 \x00\x7f",
    " ",
    "</s> <s> <unk> <0x41> are text here",
)


class SpecialIds(NamedTuple):
    """What a model's configuration says of its tokenizer."""

    bos_id: int | None
    eos_id: int | None


class _Source(NamedTuple):
    """What a file holds: ids of plain text, the same as a tokenizer of the tokenizers library, and names in it."""

    encode: Callable[[str], list[int]]
    fast: Any
    bos: str | None
    eos: str | None
    unknown: str | None
    names_are_text: bool
    """Whether a text may hold the names of control pieces; a chat model's prompts consist of them."""


def write_tokenizer(model: Path, folder: Path, max_length: int) -> SpecialIds:
    """Write tokenizer.json and its configuration beside a copy of the SentencePiece model or Llama 3's tiktoken file.

    Raises FormatError for a file that is missing or neither, and for a model that is not BPE, which transformers would
    tokenize differently.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        content = model.read_bytes()
        source = _tiktoken(content, model) if is_tiktoken(content) else _sentencepiece(content)
    except (OSError, RuntimeError):
        raise FormatError(
            f"{model}: missing, or not a SentencePiece model or Llama 3's tiktoken file; put one there"
        ) from None
    fast: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=source.fast,
        bos_token=source.bos,
        eos_token=source.eos,
        unk_token=source.unknown,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        # Names of control pieces are text to SentencePiece, as in what the model was trained on.
        split_special_tokens=source.names_are_text,
    )
    for text in PROBES:
        if fast(text, add_special_tokens=False).input_ids != source.encode(text):
            raise FormatError(f"{model}: transformers would tokenize {text!r} differently; is it a BPE model?")
    fast.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(content)
    return SpecialIds(fast.bos_token_id, fast.eos_token_id)


def _sentencepiece(content: bytes) -> _Source:
    pieces = spm.SentencePieceProcessor()
    pieces.LoadFromSerializedProto(content)
    bos, eos = (pieces.IdToPiece(i) if i >= 0 else None for i in (pieces.bos_id(), pieces.eos_id()))
    return _Source(pieces.EncodeAsIds, _fast(pieces), bos, eos, pieces.IdToPiece(pieces.unk_id()), True)


def _tiktoken(content: bytes, model: Path) -> _Source:
    import tiktoken

    try:
        ranks = read_ranks(content, str(model))
    except ValueError as error:
        raise FormatError(str(error)) from None
    encoding = tiktoken.Encoding(model.name, pat_str=SPLIT, mergeable_ranks=ranks, special_tokens={})
    return _Source(encoding.encode_ordinary, fast_tokenizer(ranks), BOS, EOS, None, False)


def special_ids(folder: Path) -> SpecialIds:
    """What begins and ends a text, of a folder with a tokenizer.json. Raises FormatError when it cannot be read."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        raise FormatError(f"{folder.name}: its tokenizer.json cannot be read ({reason(error)})") from None
    return SpecialIds(tokenizer.bos_token_id, tokenizer.eos_token_id)


def _fast(pieces: spm.SentencePieceProcessor) -> Any:
    """The tokenizers library's tokenizer with the same pieces: BPE over the whole text, bytes where no piece fits."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    n = pieces.GetPieceSize()
    vocab = {pieces.IdToPiece(i): i for i in range(n)}
    special = [pieces.IdToPiece(i) for i in range(n) if pieces.IsControl(i) or pieces.IsUnknown(i)]
    words = {p: i for p, i in vocab.items() if not (p in special or pieces.IsByte(i))}
    # SentencePiece merges the pair whose union has the best score; each way to make a piece is a merge of its rank.
    ranked = sorted(words, key=lambda p: -pieces.GetScore(words[p]))
    merges = [(p[:i], p[i:]) for p in ranked for i in range(1, len(p)) if p[:i] in words and p[i:] in words]
    unknown = pieces.IdToPiece(pieces.unk_id())
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=unknown, byte_fallback=True, fuse_unk=True))
    # A model may put a space before the text (Llama's own does); an empty text shows nothing, so a letter asks it.
    prefix = pieces.EncodeAsPieces("a")[0].startswith(SPACE_MARK)
    steps = [normalizers.Replace(" ", SPACE_MARK)]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE_MARK), *steps] if prefix else steps)
    undo = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)] if prefix else undo)
    tokenizer.add_special_tokens([AddedToken(p, normalized=False, special=True) for p in special])
    if pieces.bos_id() >= 0:
        bos = pieces.IdToPiece(pieces.bos_id())
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, pieces.bos_id())]
        )
    return tokenizer
