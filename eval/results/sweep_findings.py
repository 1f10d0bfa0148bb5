"""What a sweep finds: the best number of drafts for each exit, and who is on the front of speed and quality."""

from collections.abc import Sequence

from eval.config import Mode
from eval.engine.agreement import first_difference
from eval.measure.records import Record, Setting
from eval.results import bootstrap
from eval.results.rows import Row
from eval.results.sweep_config import AGREEMENT
from models.storage.recommended import fastest

NAMES = (AGREEMENT, f"{AGREEMENT}_low", f"{AGREEMENT}_high")
PREFERRED = ("pass@1", "exact_match", "rouge2")


def setting(row: Row) -> Setting:
    """Of a row."""
    return Setting(row["mode"], row["exit_layer"], row["num_speculations"], row["exit_states"])


def name(row: Row) -> str:
    """Of a row's setting, for people."""
    match row["mode"]:
        case Mode.early_exit:
            return f"E={row['exit_layer']}"
        case Mode.self_speculative:
            return f"E={row['exit_layer']} d={row['num_speculations']}"
    return "full depth"


def with_findings(rows: Sequence[Row], records: Sequence[Record], quality: str | None) -> tuple[list[Row], str]:
    """The rows with `equal_prefix`, `best_of_exit` and `on_front`; and what stands for quality in the last.

    On the front are those of plain decoding, early exit, and self-speculation at its best d for each E, than which none
    is as fast and as good and in one of the two better.

    Args:
        rows: of every setting.
        records: what they sum up.
        quality: what is asked for; None: the first of PREFERRED that there is, else AGREEMENT.

    Raises KeyError when there are no such numbers.
    """
    texts = {(r.setting, r.key): r.tokens for r in records}
    plain = setting(next(row for row in rows if row["mode"] == Mode.autoregressive))
    found = []
    for row in rows:
        prefixes = [
            equal_prefix(tokens, texts[plain, key])
            for (which, key), tokens in texts.items()
            if which == setting(row) and key[1] == 0
        ]
        drawn = row["identical_share"] is None  # texts that are not expected to be the same
        estimate = bootstrap.estimate(prefixes, bootstrap.mean)
        found.append(row if drawn else row | dict(zip(NAMES, estimate, strict=True)))
    quality = quality or next((m for m in PREFERRED if m in found[0]), AGREEMENT)
    best = [setting(row) for row in best_of_exits(found)]
    shown = [row for row in found if row["mode"] != Mode.self_speculative or setting(row) in best]
    on_front = pareto([(row["speedup"], row[quality]) for row in shown])
    front = [setting(row) for row, on in zip(shown, on_front, strict=True) if on]
    return [row | {"best_of_exit": setting(row) in best, "on_front": setting(row) in front} for row in found], quality


def equal_prefix(text: Sequence[int], plain: Sequence[int]) -> float:
    """The share of a text before the first token that is not plain decoding's; of the longer one of the two."""
    at = first_difference(text, plain)
    return 1.0 if at is None else at / max(len(text), len(plain))


def best_of_exits(rows: Sequence[Row]) -> list[Row]:
    """For each E the row of self-speculation with the largest speed-up; of equal ones the fewest drafts."""
    drafting = sorted(
        (row for row in rows if row["mode"] == Mode.self_speculative), key=lambda row: row["num_speculations"]
    )
    exits = sorted({row["exit_layer"] for row in drafting})
    found = [fastest([row for row in drafting if row["exit_layer"] == e]) for e in exits]
    return [row for row in found if row is not None]


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other one beats: as large in both numbers and larger in one. Equal points are on it together."""
    return [not any(x >= a and y >= b and (x, y) != (a, b) for x, y in points) for a, b in points]


def stated(row: Row) -> list[str]:
    """What a figure must state, in two lines."""
    return [
        f"{row['checkpoint']}; {row['task']}: {row['n_samples']} samples, seed {row['seed']}, {row['repeats']} times"
        f" each, {row['new_tokens']:,.0f} new tokens on average",
        f"{row['hardware']}, {row['threads']} threads, {row['dtype']}, torch {row['torch']},"
        f" commit {row['commit'][:12]}",
    ]
