"""What was drafted for one sample and what became of it: a line of a run's .samples.jsonl."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from data.tokenizers.tokenizer import Tokenizer
from eval.drafts.classes import Kind, Language, kind_of
from eval.drafts.judged import Judged, RoundCounts, counts_of, judged_in
from eval.drafts.replay import Thought, disagrees, replay
from eval.engine.decoding import Engine
from eval.engine.policy import SelfSpeculative
from eval.engine.rows import Round
from eval.engine.sampling_options import SamplingOptions
from eval.engine.stopping import StopRule
from eval.prompts.text import piece_of

DIGITS = 6


class Draft(NamedTuple):
    """One judged draft: what it is (see `Judged`), and what the models thought of it (see `Thought`)."""

    at: int
    position: int
    draft: int
    full: int
    lost: int
    draft_class: str
    piece: str | None
    full_class: str
    """Class of the token that stands there in the text."""
    rank: int
    rank_of_full: int
    full_probability: float
    confidence: float
    entropy: float

    @property
    def accepted(self) -> bool:
        """Whether it stands in the text."""
        return self.draft == self.full


@dataclass(frozen=True, kw_only=True)
class DraftedSample:
    """One text."""

    id: str
    group: str
    prompt_tokens: int
    tokens: list[int]
    """The new ones."""
    rounds: list[RoundCounts]
    """Rounds that drafted something."""
    drafts: list[Draft]
    """The judged ones, in the order of the text."""
    near_ties: int = 0
    """Drafts of which the pass over the text says otherwise than the engine, the logits being closer than rounding."""
    unexplained: int = 0
    """Drafts on which the engine and the pass disagree though the logits are not close: an error."""

    def as_json(self) -> dict[str, Any]:
        """What a line holds; the drafts as columns."""
        columns = {name: [getattr(d, name) for d in self.drafts] for name in Draft._fields}
        return asdict(self) | {"drafts": columns}


def drafted_sample_from_json(value: Mapping[str, Any]) -> DraftedSample:
    """A sample from its line; raises KeyError, TypeError or ValueError for anything else."""
    columns = [value["drafts"][name] for name in Draft._fields]
    drafts = [Draft(*row) for row in zip(*columns, strict=True)]
    return DraftedSample(**{**value, "drafts": drafts, "rounds": [RoundCounts(*r) for r in value["rounds"]]})


def drafted_sample(
    engine: Engine,
    tokenizer: Tokenizer,
    prompt: list[int],
    policy: SelfSpeculative,
    stop: StopRule,
    sampling: SamplingOptions,
    *,
    language: Language,
    sample_id: str = "",
    group: str = "",
) -> DraftedSample:
    """Decode a prompt and look at its drafts. Raises FloatingPointError where logits are not numbers."""
    rounds: list[Round] = list(engine.generate(prompt, policy, stop, sampling))
    new, judged = [t for r in rounds for t in r.tokens], judged_in(rounds)
    thoughts = replay(engine.model, prompt, new, policy.exit_layer, judged)
    greedy = sampling.plain
    verdicts = [disagrees(t, engine.model.dtype) for t in thoughts] if greedy else []
    kinds = _kinds(tokenizer, prompt, new, judged, language)
    return DraftedSample(
        id=sample_id,
        group=group,
        prompt_tokens=len(prompt),
        tokens=new,
        rounds=[counts_of(r) for r in rounds if r.n_drafted],
        drafts=[_draft(*of) for of in zip(judged, kinds, thoughts, strict=True)],
        near_ties=sum(v is None for v in verdicts),
        unexplained=sum(v is True for v in verdicts),
    )


def _draft(judged: Judged, kinds: tuple[Kind, Kind], thought: Thought) -> Draft:
    draft_kind, full = kinds
    return Draft(
        at=judged.at,
        position=judged.position,
        draft=judged.draft,
        full=judged.full,
        lost=judged.lost,
        draft_class=draft_kind.token_class.value,
        piece=None if draft_kind.piece is None else draft_kind.piece.value,
        full_class=full.token_class.value,
        rank=thought.rank,
        rank_of_full=thought.rank_of_full,
        full_probability=round(thought.full_probability, DIGITS),
        confidence=round(thought.confidence, DIGITS),
        entropy=round(thought.entropy, DIGITS),
    )


def _kinds(
    tokenizer: Tokenizer, prompt: Sequence[int], new: Sequence[int], judged: Sequence[Judged], language: Language
) -> list[tuple[Kind, Kind]]:
    """Classes of each judged draft and of the token that stands in its place."""
    before, at, out = b"".join(piece_of(tokenizer, i) for i in prompt), 0, []
    for j in judged:
        before += b"".join(piece_of(tokenizer, i) for i in new[at : j.at])
        at = j.at
        draft_kind, full = (kind_of(before, piece_of(tokenizer, i), language) for i in (j.draft, j.full))
        out.append((draft_kind, full))
    return out
