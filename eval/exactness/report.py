"""What a check of the decoders found: for people, and as JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from eval.engine.agreement import NEAR_TIE
from eval.exactness.distribution import SMALLEST_P, Verdict
from eval.exactness.divergence import Choice, Compared, Divergence
from eval.exactness.facts import CheckFacts
from eval.results.columns import aligned
from eval.setting import Setting


@dataclass(frozen=True, kw_only=True)
class DecoderRow:
    """What became of one decoder's texts, over all samples."""

    decoder: Setting
    against: str
    """What it is held against: `plain` decoding's text, or `one pass` of the full model."""
    n_samples: int
    n_tokens: int
    identical: int
    near_ties: int
    """Samples whose differences are all explained by rounding."""
    unexplained: int
    """Samples with another difference."""

    def as_json(self) -> dict[str, Any]:
        """The decoder's fields and the others."""
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "decoder"}
        return self.decoder._asdict() | numbers


def decoder_rows(compared: Sequence[Compared]) -> list[DecoderRow]:
    """A row for each decoder."""
    rows: list[DecoderRow] = []
    for decoder in dict.fromkeys(c.decoder for c in compared):
        same_decoder = [c for c in compared if c.decoder == decoder]
        rows.append(
            DecoderRow(
                decoder=decoder,
                against="plain" if rows else "one pass",
                n_samples=len(same_decoder),
                n_tokens=sum(c.n_tokens for c in same_decoder),
                identical=sum(not c.divergences for c in same_decoder),
                near_ties=sum(bool(c.divergences) and all(d.near_tie for d in c.divergences) for c in same_decoder),
                unexplained=sum(any(not d.near_tie for d in c.divergences) for c in same_decoder),
            )
        )
    return rows


def decoder_table(rows: Sequence[DecoderRow]) -> str:
    """The rows as text."""
    cells = [["decoder", "against", "samples", "tokens", "same", "near-ties", "UNEXPLAINED"]]
    for row in rows:
        numbers = (row.n_samples, row.n_tokens, row.identical, row.near_ties, row.unexplained)
        cells.append([row.decoder.label, row.against, *(f"{n:,}" for n in numbers)])
    return "\n".join(aligned(cells))


def divergence_lines(found: Divergence) -> str:
    """A divergence in four lines."""
    other = "autoregressive decoding" if found.against == "plain" else "the full model in one pass"
    at, gap = f"token {found.position + 1} of {found.n_tokens}", f"; gap {found.gap:.3g}"
    gap += f" {'<' if found.gap < found.bound else '>='} {found.bound:g}"
    if found.got is None or found.expected is None:  # the end of a text is no matter of rounding
        at, gap = f"after {found.position} tokens, where one of them ends", ""
    return "\n".join(
        [
            f"{'near-tie' if found.near_tie else 'UNEXPLAINED'}: {found.decoder.label} differs from {other}:"
            f" sample {found.sample}, {at}",
            f"  after      ...{found.context!r}",
            f"  it writes  {_choice(found.got)}; {other} {_choice(found.expected)}",
            f"  two best   {_choice(found.top[0])}; {_choice(found.top[1])}{gap}",
        ]
    )


def _choice(choice: Choice | None) -> str:
    return "nothing more" if choice is None else f"{choice.id} {choice.text!r} (logit {choice.logit:.6g})"


def verdict_line(test: Verdict) -> str:
    """A comparison of distributions in a line."""
    verdict = "the same distribution" if test.same else "ANOTHER DISTRIBUTION"
    return (
        f"sampled, {test.decoder.label}, sample {test.sample}: {test.draws:,} draws each, {test.cells} cells,"
        f" chi-square {test.statistic:.1f}, p = {test.p:.2g}: {verdict} (differs below {SMALLEST_P:g})"
    )


def legend(facts: CheckFacts) -> str:
    """What the table's words mean, and where it was made."""
    lines = [
        f"near-tie: where texts part, both tokens' logits are less than {facts.near_tie:g} steps of"
        f" {facts.provenance.dtype} at their size below the largest one;",
        "one pass: each token of autoregressive decoding's text is the full model's choice in one pass over it, or"
        " hardly less",
        f"{facts.checkpoint}; {facts.provenance}",
    ]
    if facts.transformers:
        lines.insert(
            1,
            f"(transformers {facts.transformers}, with angles in float32: at least {NEAR_TIE[torch.float32]:g} steps"
            " of float32);",
        )
    if facts.batch_size > 1:
        lines.insert(0, f"{facts.batch_size} texts at the same time, autoregressive decoding's one alone;")
    return "\n".join(lines)


def as_json(
    facts: CheckFacts,
    rows: Sequence[DecoderRow],
    found: Sequence[Divergence],
    tests: Sequence[Verdict],
    *,
    passed: bool,
) -> dict[str, Any]:
    """All of it; what is no number is null."""
    return {
        **facts.as_json(),
        "passed": passed,
        "decoders": [row.as_json() for row in rows],
        "divergences": [_divergence(d) for d in found],
        "sampled": [asdict(test) | {"decoder": test.decoder._asdict(), "same": test.same} for test in tests],
    }


def _divergence(found: Divergence) -> dict[str, Any]:
    top = [_choice_json(choice) for choice in found.top]
    fields = asdict(found) | {"decoder": found.decoder._asdict(), "gap": _number(found.gap), "top": top}
    return fields | {
        "got": _choice_json(found.got),
        "expected": _choice_json(found.expected),
        "near_tie": found.near_tie,
    }


def _choice_json(choice: Choice | None) -> dict[str, Any] | None:
    return None if choice is None else choice._asdict() | {"logit": _number(choice.logit)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
