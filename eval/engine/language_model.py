"""The engine as a library: a checkpoint that continues texts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from data.tokenizers.tokenizer import Tokenizer
from eval.engine.chat import open_for_prompts
from eval.engine.decoding import Engine
from eval.engine.one_pass import exit_logits
from eval.engine.policy import Autoregressive, Policy, SelfSpeculative
from eval.engine.rows import Request
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from eval.engine.text_stream import TextStream
from models.inference import InferenceLlama
from models.storage.recommended import recommended


def load(
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    chat: bool = False,
    batch_size: int = 8,
    compiled: bool = False,
) -> "LanguageModel":
    """Open a checkpoint to continue texts.

    Args:
        path: a run folder (its newest checkpoint), a checkpoint of it, a Hugging Face folder or a .gguf file.
        dtype: of weights and cache.
        device: that decodes.
        chat: prompts are a user's turn in the model's own chat template.
        batch_size: texts that are written at the same time.
        compiled: compile the passes when they first occur, which takes minutes (see eval.engine.passes).

    Raises FormatError for what is no model, DataError for a tokenizer that is missing or unfit, ConfigError for
    chat=True without a template.
    """
    checkpoint = open_for_prompts(str(path), chat=chat)
    best = recommended(checkpoint.stored.folder)
    fastest = SelfSpeculative(best.exit_layer, best.num_speculations) if best and best.pays else Autoregressive()
    model = checkpoint.model(dtype, torch.device(device), draft_vocab=best.draft_vocab if best else None)
    return LanguageModel(model, checkpoint.tokenizer, fastest, batch_size, compiled)


class LanguageModel:
    """A model with its tokenizer."""

    def __init__(
        self, model: InferenceLlama, tokenizer: Tokenizer, policy: Policy, batch_size: int, compiled: bool
    ) -> None:
        """`policy`: how to decode where a call does not say."""
        self.model, self.tokenizer, self.policy = model, tokenizer, policy
        self.batch_size, self.compiled = batch_size, compiled
        self._idle: Engine | None = None
        """The engine of the last texts, unless they are still being written."""

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 128,
        policy: Policy | None = None,
        sampling: SamplingOptions | None = None,
        stop: Sequence[str] = (),
    ) -> list[str]:
        """What follows each of the prompts; see `stream`."""
        texts = [""] * len(prompts)
        pieces = self.stream(prompts, max_new_tokens=max_new_tokens, policy=policy, sampling=sampling, stop=stop)
        for number, piece in pieces:
            texts[number] += piece
        return texts

    def stream(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 128,
        policy: Policy | None = None,
        sampling: SamplingOptions | None = None,
        stop: Sequence[str] = (),
    ) -> Iterator[tuple[int, str]]:
        """Continue several prompts at the same time; each text is the one that its prompt alone would give.

        Args:
            prompts: texts, or questions with chat=True.
            max_new_tokens: of each text, at most. It ends before that at the token that ends a text, at a stop string,
                or with the model's context.
            policy: how to decode; None: with the fastest setting that eval.benchmark has measured of the checkpoint,
                or plainly where it has measured none that pays. The text does not depend on it, but for an early exit.
            sampling: None: the likeliest tokens. Every prompt draws with the same seed, as if it were alone.
            stop: strings that end a text; it ends with the token that completes one.

        Yields:
            (number of the prompt, the next piece of its text), in whole characters.

        Raises ValueError, in one line, for a prompt or policy that cannot be decoded.
        """
        if isinstance(prompts, str):
            raise ValueError("prompts: is a text; give a list of texts")
        decode = self.tokenizer.decode
        rule = StopRule(
            max_new_tokens=max_new_tokens,
            eos_ids=frozenset({self.tokenizer.eos_id}),
            strings=tuple(stop),
            decode=decode,
        )
        tokens = [self.tokenizer.encode_prompt(prompt) for prompt in prompts]
        streams = [TextStream(decode, prompt) for prompt in tokens]
        requests = [Request(prompt, rule, sampling or SamplingOptions()) for prompt in tokens]
        engine = self._engine(max(map(len, tokens), default=0) + max_new_tokens)
        for rounds in engine.generate_all(requests, policy or self.policy):
            for number, round_ in rounds:
                piece = streams[number].push(round_.tokens) + (streams[number].rest() if round_.ends else "")
                if piece:
                    yield number, piece
        self._idle = engine

    def exit_logits(self, texts: Sequence[str], exit_layer: int | None = None) -> list[torch.Tensor]:
        """What an exit predicts after every token of each text; see eval.engine.one_pass."""
        return exit_logits(self.model, self.tokenizer, texts, exit_layer)

    def _engine(self, n_positions: int) -> Engine:
        """One with room for so many positions of each text, or for the whole context; the idle one if it has it."""
        n_positions, engine, self._idle = min(n_positions, self.model.size.max_seq_len), self._idle, None
        if engine is None or engine.cache.max_len < n_positions:
            engine = Engine(self.model, n_positions, self.batch_size, compiled=self.compiled)
        return engine
