"""Prompts as turns of a conversation, in the words of the model's own chat template."""

from typing import Any

from conf.strict import ConfigError
from data.tokenizers.tokenizer import Tokenizer
from eval.engine.checkpoint import Checkpoint, open_checkpoint
from eval.engine.hf_tokenizer import transformers_tokenizer


class ChatTokenizer:
    """A tokenizer whose prompts are a user's turn, after which the model's begins; all else is the tokenizer's own."""

    def __init__(self, plain: Tokenizer, theirs: Any) -> None:
        """`plain` is ours and `theirs` is transformers', of the same model."""
        self._plain, self._theirs = plain, theirs
        self.files, self.vocab_size = plain.files, plain.vocab_size
        self.eos_id, self.bos_id = plain.eos_id, plain.bos_id

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of the template's text around the user's, special tokens included."""
        turns = [{"role": "user", "content": text}]
        ids = self._theirs.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)
        return list(ids)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; nothing is added."""
        return self._plain.encode(text)

    def encode_document(self, text: str) -> list[int]:
        """Ids of a whole document, with what begins and ends it."""
        return self._plain.encode_document(text)

    def decode(self, ids: list[int]) -> str:
        """The text of ids; control pieces say nothing."""
        return self._plain.decode(ids)

    def token_bytes(self) -> list[int]:
        """For each id, how many bytes of text it stands for."""
        return self._plain.token_bytes()

    def piece(self, i: int) -> bytes:
        """The bytes of text that an id stands for."""
        return self._plain.piece(i)

    def name(self, i: int) -> str:
        """What the vocabulary calls an id."""
        return self._plain.name(i)


def open_for_prompts(path: str, *, chat: bool) -> Checkpoint:
    """Open a checkpoint whose prompts are texts or, with `chat`, turns. Raises ConfigError or FormatError."""
    checkpoint = open_checkpoint(path)
    return with_chat(checkpoint) if chat else checkpoint


def with_chat(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with prompts in its chat template. Raises ConfigError when it has none."""
    theirs = transformers_tokenizer(checkpoint)
    if not theirs.chat_template:
        where = checkpoint.stored.gguf or checkpoint.stored.folder
        raise ConfigError(f"chat=true: the tokenizer of {where} has no chat template; leave chat out")
    return checkpoint._replace(tokenizer=ChatTokenizer(checkpoint.tokenizer, theirs))
