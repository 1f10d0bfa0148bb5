"""Pieces of held-out text, spread evenly over it: how fast a model continues what it was trained for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from conf.checks import at_least
from conf.strict import ConfigError
from eval.tasks.task import SECTION, Chosen, Sample, Selection, Task

if TYPE_CHECKING:
    from eval.engine.checkpoint import Checkpoint


@dataclass(kw_only=True)
class HeldOut(Task):
    """Speed alone: there is no reference, and the end-of-text token does not end a text."""

    EXIT_SHARES: ClassVar[tuple[float, ...]] = (2 / 16, 3 / 16, 4 / 16, 8 / 16)
    DRAFTS: ClassVar[tuple[int, ...]] = (2, 3, 4, 6)
    ASKS: ClassVar[bool] = False
    BESIDE_TRANSFORMERS: ClassVar[bool] = True

    name: str = "held_out"
    source: str | None = None
    """A file, folder or glob of .txt, .md, .py or .jsonl, or `stdlib`; null: the run's own held-out text."""
    n_samples: int | None = 16
    prompt_tokens: int = 32
    """Tokens of each prompt."""
    max_new_tokens: int | None = 96
    ignore_eos: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "prompt_tokens", section=SECTION)
        at_least(2, self, "max_new_tokens", section=SECTION)
        if self.max_new_tokens is None:
            raise ValueError("task.max_new_tokens=null: pieces of text have no references; give a number")
        if self.n_samples is None:
            raise ValueError("task.n_samples=null: the text is not made of samples; give a number")

    def samples(self, checkpoint: "Checkpoint") -> Chosen:
        """Prompts of `prompt_tokens` tokens."""
        from eval.tasks.held_out_text import held_out_prompts

        assert self.n_samples is not None
        n_tokens, context = self.prompt_tokens + self.limit, checkpoint.stored.size.max_seq_len
        if n_tokens > context:
            raise ConfigError(
                f"task.prompt_tokens + task.max_new_tokens={n_tokens}: must be at most the context's {context}"
            )
        if self.source is None and checkpoint.stored.run is None:
            raise ConfigError("task.source: missing; the checkpoint is no run folder, so no text was held out for it")
        prompts = held_out_prompts(checkpoint, self.source, self.n_samples, self.prompt_tokens)
        samples = [Sample(id=str(i), prompt=checkpoint.tokenizer.decode(p), tokens=p) for i, p in enumerate(prompts)]
        return Chosen(samples, Selection(source=self.source or "held out"))
