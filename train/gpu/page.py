"""The page of train.acceptance: what was found, in tables, and what has not been done."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from train.gpu.steps import SMALL_RUN

Record = Mapping[str, Any]
HOW_TO = """\
<!-- needs: gpu -->
```bash
make gpu
python -m train.acceptance device=cuda checkpoint=outputs/demo
```

writes this page and the numbers beside it (`gpu.json`) within 10 minutes (`minutes=`) on one GPU of 80 GB. It can be
ended at any time: the page has the steps that are done, and the same command goes on with the others.
`docs/scaling.md` says what each step is, and how to take it to a machine without a network.
"""


def page(record: Record) -> str:
    """The whole page, in Markdown."""
    found = {name: step["result"] for name, step in record["steps"].items() if step["status"] == "done"}
    parts = [
        "# On a GPU",
        _status(record, found.get("probe")),
        HOW_TO.strip(),
        *_section("Parity", "parity", found, _parity),
        *_training(found),
        *_section("A run of train.pretrain", SMALL_RUN, found, _small_run),
        *_decoding(found, record["conditions"]["device"] == "cuda"),
        *_section("Collectives", "collectives", found, _collectives),
        "## Steps",
        _table(("step", "status", "seconds", ""), _steps(record)),
    ]
    return "\n\n".join(parts) + "\n"


def _status(record: Record, probe: Mapping[str, Any] | None) -> str:
    conditions = record["conditions"]
    lines = []
    if conditions["device"] != "cuda":
        lines.append(
            "**A rehearsal on a CPU: none of these numbers says anything about a GPU.** Nothing here has ever run on a"
            " GPU; the tables are those of tiny models, so that the command is known to work. Whoever has a GPU runs it"
            " and commits the page."
        )
    if probe is None:
        return "\n\n".join([*lines, "The device has not been looked at yet."])
    gpu = f", {probe['n_gpus']} of them" if probe["n_gpus"] > 1 else ""
    memory = f", {probe['memory_gib']:.0f} GiB" if probe["memory_gib"] else ""
    versions = [f"torch {probe['torch']}"] + [f"{k.upper()} {probe[k]}" for k in ("cuda", "nccl") if probe[k]]
    lines.append(
        f"{probe['hardware']}{memory}{gpu}; {', '.join(versions)}; commit {probe['commit'][:12]}."
        f" A copy moves {probe['copy_bytes_per_second'] / 1e9:,.0f} GB/s (read and written), a bf16 matrix product does"
        f" {probe['bf16_flops_per_second'] / 1e12:,.2f} TFLOP/s."
    )
    return "\n\n".join(lines)


def _section(title: str, name: str, found: Record, text: Callable[[Any], str]) -> list[str]:
    return [f"## {title}", text(found[name])] if name in found else []


def _parity(rows: Sequence[Record]) -> str:
    held = sum(row["holds"] for row in rows)
    said = (
        "Loss and gradients of one step of a small model beside those of the CPU in fp32, with the same weights,"
        " tokens and kept rows: the relative difference of the loss, and the norm of the gradients' difference over"
        " their norm."
        f" {held} of {len(rows)} lie within the bounds (fp32 1e-5 and 1e-3, bf16 5e-3 and 0.1)."
    )
    kinds = {(False, False): "eager", (True, False): "compiled", (False, True): "recomputed"}
    cells = [
        (
            row["arm"],
            row["precision"],
            kinds[row["compiled"], row["recompute"]],
            f"{row['loss_cpu']:.5f}",
            f"{row['loss_device']:.5f}",
            f"{row['loss_difference']:.1e}",
            f"{row['gradient_difference']:.1e}",
            "yes" if row["holds"] else "**no**",
        )
        for row in rows
    ]
    return f"{said}\n\n" + _table(
        ("arm", "precision", "", "loss, CPU", "loss, device", "loss differs", "gradients differ", "holds"), cells
    )


def _training(found: Record) -> list[str]:
    rows = [row for name, result in found.items() if name.startswith("training") for row in result]
    if not rows:
        return []
    one = rows[0]
    said = (
        f"{one['model']}, {one['rows']} rows of {one['seq_len']:,} tokens, {one['precision']}: whole steps with"
        " clipping and AdamW; LD with p_max = 0.2 constant in time, EE rotating with R = 8. The arms take turns in one"
        " process. *By FLOPs*: what the matrix products of kept rows and exits alone would give. MFU: of the GPU's bf16"
        " peak, recomputation not counted. *Expected*: the peak in GiB that train.describe computes."
    )
    cells = [
        (
            row["recompute"],
            "compiled" if row["compiled"] else "eager",
            row["arm"],
            f"{row['exits']:.1f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['speed_over_plain']:.3f}",
            f"{row['flops_over_plain']:.3f}",
            _or_none(row["mfu"], ".3f"),
            _or_none(row["peak_gib"], ".1f"),
            f"{row['expected_gib']:.3g}",
            f"{row['first_step_seconds']:.1f}",
        )
        for row in rows
    ]
    head = (
        "recompute",
        "",
        "arm",
        "exits",
        "tokens/s",
        "over plain",
        "by FLOPs",
        "MFU",
        "peak GiB",
        "expected",
        "first step, s",
    )
    return ["## Training", f"{said}\n\n" + _table(head, cells)]


def _small_run(rows: Sequence[Record]) -> str:
    logged = [row for row in rows if "train/tokens_per_second" in row]
    last = logged[-1]
    losses = [next(v for k, v in sorted(row.items(), reverse=True) if k.startswith("train/loss/")) for row in logged]
    facts = [
        ("steps", f"{last['step']:,}"),
        ("loss after the last layer, first line and last", f"{losses[0]:.3f}, {losses[-1]:.3f}"),
        ("tokens/s, last line", f"{last['train/tokens_per_second']:,.0f}"),
        ("MFU, last line", _or_none(last.get("train/mfu"), ".4f")),
        ("peak memory, GiB", _or_none(last.get("train/memory_gib"), ".2f")),
        (
            "seconds that training stood still for checkpoints",
            f"{sum(r.get('train/checkpoint_seconds', 0.0) for r in rows):.2f}",
        ),
    ]
    return "The command itself: data, checkpoints behind training, a profiler's trace, validation.\n\n" + _table(
        ("", ""), facts
    )


def _decoding(found: Record, on_gpu: bool) -> list[str]:
    parts = []
    for name, result in found.items():
        if not name.startswith("decoding"):
            continue
        one = result[0]
        given = name == "decoding_checkpoint"
        weights = "the given checkpoint" if given else "random weights, so that the time of passes counts and no text"
        reading = (
            f" Plain decoding reads {one['weight_mb_per_token']:,.0f} MB of weights a token, at"
            f" {one['share_of_bandwidth']:.2f} of the {one['bandwidth_gb_per_second']:,.0f} GB/s of a matrix-vector"
            " product."
            if "share_of_bandwidth" in one
            else ""
        )
        kind = "Eager" if not one["compiled"] else f"Compiled{', replayed as CUDA graphs' * on_gpu}"
        said = f"{kind}, {one['dtype']}; {weights}.{reading}"
        cells = [
            (
                row["mode"].replace("_", "-"),
                row["exit_layer"],
                row["num_speculations"] or "",
                f"{row['tokens_per_second']:,.1f}",
                f"{row['speedup']:.2f}",
                _or_none(row.get("acceptance_rate"), ".2f"),
                _or_none(row.get("measured_cost_ideal"), ".2f"),
                _or_none(row.get("peak_memory_mb"), ",.0f"),
                _same_text(row),
            )
            for row in result
        ]
        head = ("mode", "E", "d", "tokens/s", "speed-up", "accepted", "ideal at these passes", "peak MB", "same text")
        parts.append(f"{said}\n\n" + _table(head, cells))
    return ["## Decoding", *parts] if parts else []


def _same_text(row: Record) -> str:
    """Of a mode whose text must be that of plain decoding."""
    if row["mode"] != "self_speculative" or row["identical_output"] is None:
        return ""
    return "yes" if row["identical_output"] else "**no**"


def _collectives(rows: Sequence[Record]) -> str:
    cells = [
        (
            row["ranks"],
            row["processors"],
            f"{row['tokens_per_second']:,.0f}",
            f"{row['efficiency']:.2f}",
            f"{row['sent_bytes'] / 1e6:,.1f}",
        )
        for row in rows
    ]
    said = "Weak scaling by train.scaling, NCCL on GPUs and gloo on CPUs, runs of torchrun."
    return f"{said}\n\n" + _table(("ranks", "processors", "tokens/s", "efficiency", "MB sent a step and rank"), cells)


def _steps(record: Record) -> Iterable[tuple[object, ...]]:
    for name, step in record["steps"].items():
        why = step.get("why", "").replace("|", "\\|").replace("`", "'")
        yield name, step["status"], f"{step['seconds']:.0f}", f"`{why}`" if why else ""


def _or_none(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
