"""What a GGUF file says of a tokenizer, made from the files that transformers' AutoTokenizer reads."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece as spm
from gguf import TokenType
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer

from conf.errors import reason
from conf.llama3_tiktoken import is_tiktoken
from models.storage.errors import FormatError
from models.storage.gguf.pre_tokenizers import KNOWN, name_of
from models.storage.hf_tokenizer import PROBES, SPACE_MARK

SENTENCEPIECE, BYTE_LEVEL = "llama", "gpt2"
"""GGUF's names for the two kinds of BPE."""
_NAMES = (int(TokenType.CONTROL), int(TokenType.UNKNOWN), int(TokenType.USER_DEFINED), int(TokenType.BYTE))


class Vocabulary(NamedTuple):
    """A tokenizer as GGUF describes it."""

    kind: str
    """SENTENCEPIECE or BYTE_LEVEL."""
    tokens: list[str]
    types: list[int]
    """A TokenType for each token."""
    scores: list[float]
    """SentencePiece: the neighbours whose union has the best score are merged first. Empty for byte-level."""
    merges: list[str]
    """Byte-level: pairs with a space between, the first to merge first. Empty for SentencePiece."""
    pre: str
    """Byte-level: the name of how text is split before."""
    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    adds_bos: bool
    """Whether a text begins with bos_id."""
    adds_space: bool
    """SentencePiece: whether a space is put before a text."""
    chat_template: str | None = None

    def name(self, i: int | None) -> str | None:
        """The token of an id, if there is one."""
        return None if i is None else self.tokens[i]

    def filled_up(self, n_tokens: int) -> "Vocabulary":
        """With unused tokens, as many as the embedding has rows. Raises FormatError for fewer rows than tokens."""
        missing = n_tokens - len(self.tokens)
        if missing < 0:
            raise FormatError(f"the tokenizer has {len(self.tokens)} tokens, the embedding only {n_tokens} rows")
        return self._replace(
            tokens=self.tokens + [f"[PAD{i}]" for i in range(len(self.tokens), n_tokens)],
            types=self.types + [int(TokenType.UNUSED)] * missing,
            scores=self.scores + [-1000.0] * (missing if self.scores else 0),
        )


def vocabulary_of(folder: Path, eos_id: int | None) -> Vocabulary:
    """From tokenizer.json and tokenizer.model, with what tokenizer_config.json and a chat template add.

    Args:
        folder: as models.storage.tokenizer_files has written it.
        eos_id: what ends a text where the files do not say it.

    Raises FormatError for a tokenizer that GGUF cannot describe.
    """
    layout, settings = _json(folder / "tokenizer.json"), _json(folder / "tokenizer_config.json")
    model = layout.get("model", {})
    if layout and model.get("type") != "BPE":
        raise FormatError(f"tokenizer.json: {model.get('type')} is not supported in a GGUF file, only BPE is")
    if '"ByteLevel"' in json.dumps(layout.get("pre_tokenizer")):
        found = _byte_level(layout)
    else:
        found = _pieces(folder / "tokenizer.model", layout)
    ids = {token: i for i, token in enumerate(found.tokens)}

    def id_of(key: str, otherwise: int | None) -> int | None:
        value = settings.get(key)
        name = value.get("content") if isinstance(value, dict) else value
        return otherwise if name is None else ids.get(str(name), otherwise)

    found = found._replace(
        bos_id=id_of("bos_token", found.bos_id),
        eos_id=id_of("eos_token", eos_id if found.eos_id is None else found.eos_id),
        unk_id=id_of("unk_token", found.unk_id),
        chat_template=_chat_template(folder, settings),
    )
    fast = Tokenizer.from_str(json.dumps(layout)) if layout else None
    if fast is not None:
        found = found._replace(adds_bos=fast.encode("a").ids[:1] == [found.bos_id])
    if found.kind == SENTENCEPIECE:
        _check_pieces(found, fast)
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text("utf-8")) if file.exists() else {}
    except ValueError as error:
        raise FormatError(f"{file.name}: cannot be read ({reason(error)})") from None


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    file, inside = folder / "chat_template.jinja", settings.get("chat_template")
    return file.read_text("utf-8") if file.exists() else inside if isinstance(inside, str) else None


def _added(layout: dict[str, Any]) -> dict[int, tuple[str, int]]:
    """Id -> token and type of what tokenizer.json has besides its model."""
    return {
        token["id"]: (token["content"], int(TokenType.CONTROL if token.get("special") else TokenType.USER_DEFINED))
        for token in layout.get("added_tokens", [])
    }


def _ordered(found: dict[int, tuple[str, int]]) -> tuple[list[str], list[int]]:
    """Tokens and types by id; an id without a token is an unused one."""
    places = [found.get(i, (f"[PAD{i}]", int(TokenType.UNUSED))) for i in range(max(found) + 1)]
    return [token for token, _ in places], [kind for _, kind in places]


def _byte_level(layout: dict[str, Any]) -> Vocabulary:
    model, pre = layout["model"], name_of(layout)
    if pre is None:
        names = ", ".join(KNOWN)
        raise FormatError(f"tokenizer.json: splits text in a way that has no name in GGUF here (known: {names})")
    normal = {i: (token, int(TokenType.NORMAL)) for token, i in model["vocab"].items()}
    tokens, types = _ordered(normal | _added(layout))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return Vocabulary(BYTE_LEVEL, tokens, types, [], merges, pre, None, None, None, False, False)


def _pieces(file: Path, layout: dict[str, Any]) -> Vocabulary:
    content = file.read_bytes() if file.exists() else b""
    if content and not is_tiktoken(content):
        proto = sentencepiece_model_pb2.ModelProto()
        try:
            proto.ParseFromString(content)
        except Exception as error:  # protobuf's own
            raise FormatError(f"{file.name}: not a SentencePiece model ({reason(error)})") from None
        return _of_proto(proto, layout)
    if not layout.get("model", {}).get("byte_fallback"):
        raise FormatError(
            "tokenizer.json: neither byte-level BPE nor converted from SentencePiece; GGUF has no name for it"
        )
    return _of_merges(layout)


def _of_proto(proto: Any, layout: dict[str, Any]) -> Vocabulary:
    found = {i: (piece.piece, int(piece.type)) for i, piece in enumerate(proto.pieces)}
    more = {i: token for i, token in _added(layout).items() if i >= len(found)}
    tokens, types = _ordered(found | more)
    scores = [float(piece.score) for piece in proto.pieces] + [-1000.0] * (len(tokens) - len(found))
    pieces = spm.SentencePieceProcessor()
    pieces.LoadFromSerializedProto(proto.SerializeToString())
    bos, eos, unk = (i if i >= 0 else None for i in (pieces.bos_id(), pieces.eos_id(), pieces.unk_id()))
    prefix = bool(proto.normalizer_spec.add_dummy_prefix)
    return Vocabulary(SENTENCEPIECE, tokens, types, scores, [], "", bos, eos, unk, bos is not None, prefix)


def _of_merges(layout: dict[str, Any]) -> Vocabulary:
    """The scores from the order of the merges, which is the order of the pieces that they make."""
    model = layout["model"]
    found = {i: (token, int(TokenType.NORMAL)) for token, i in model["vocab"].items()}
    unknown = model.get("unk_token")
    for i, (token, _) in found.items():
        if token == unknown:
            found[i] = token, int(TokenType.UNKNOWN)
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            found[i] = token, int(TokenType.BYTE)
    special = {i: token for i, token in _added(layout).items() if token[0] != unknown}
    tokens, types = _ordered(found | special)
    rank: dict[str, int] = {}
    for number, pair in enumerate(model["merges"]):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        rank.setdefault(left + right, number)
    # A character by itself is made by no merge; a score that is lower than all others leaves it as it is.
    scores = [-float(rank.get(token, len(model["merges"]))) for token in tokens]
    normalizer = json.dumps([layout.get("normalizer"), layout.get("pre_tokenizer")])
    prefix = '"Prepend"' in normalizer or '"prepend_scheme": "first"' in normalizer or '"always"' in normalizer
    unk_id = model["vocab"].get(unknown)
    return Vocabulary(SENTENCEPIECE, tokens, types, scores, [], "", None, None, unk_id, False, prefix)


def sentencepiece_model(vocabulary: Vocabulary) -> bytes:
    """The same as a SentencePiece model: BPE by score over the text as it stands."""
    proto = sentencepiece_model_pb2.ModelProto()
    for token, score, kind in zip(vocabulary.tokens, vocabulary.scores, vocabulary.types, strict=True):
        proto.pieces.add(piece=token, score=score, type=kind)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type, trainer.vocab_size = trainer.BPE, len(vocabulary.tokens)
    trainer.byte_fallback = int(TokenType.BYTE) in vocabulary.types
    for name, i in (("bos", vocabulary.bos_id), ("eos", vocabulary.eos_id), ("unk", vocabulary.unk_id), ("pad", None)):
        setattr(trainer, f"{name}_id", -1 if i is None else i)
        if i is not None:
            setattr(trainer, f"{name}_piece", vocabulary.tokens[i])
    if vocabulary.bos_id is None:
        trainer.bos_piece = ""
    if vocabulary.eos_id is None:
        trainer.eos_piece = ""
    normalizer.name, normalizer.precompiled_charsmap = "identity", b""
    normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = vocabulary.adds_space, False
    normalizer.escape_whitespaces = True
    return proto.SerializeToString()


def _check_pieces(vocabulary: Vocabulary, fast: Tokenizer | None) -> None:
    """Raise FormatError where a reader of GGUF, which merges by score, would make other tokens of a text."""
    pieces = spm.SentencePieceProcessor()
    try:
        pieces.LoadFromSerializedProto(sentencepiece_model(vocabulary))
    except RuntimeError as error:
        raise FormatError(f"the tokenizer cannot be written as GGUF ({reason(error)})") from None
    names = {token for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind in _NAMES}
    for text in PROBES if fast else ():
        if any(name in text for name in names) or SPACE_MARK in text:
            continue  # a name in a text is text to one tokenizer and a token to another, in every format
        if (ids := fast.encode(text, add_special_tokens=False).ids) != pieces.EncodeAsIds(text):  # type: ignore[union-attr]
            raise FormatError(f"the tokenizer makes other tokens of {text!r} than GGUF's rules do ({ids[:4]}...)")
