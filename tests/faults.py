"""The fault table: what goes wrong on a cluster, done to real runs of two ranks, and what it costs.

    python tests/faults.py --output docs/results/faults.md [--only kill] [--seed 1] [--moments 30]

Each row trains a small model with `torchrun` and `train.pretrain` as a user does, makes something go wrong at a random
moment, repeats the same command, and compares the metrics of every step with those of a run that was left alone.
"Steps lost" are those between the last committed checkpoint and the fault. It needs root for the full disk (a tmpfs)
and for the unreadable file.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conftest import TINY_RUN
from fault_runs import EVERY, PLUGIN, ROOT, STEPS, Bench, last_step, newest
from training import rows

from conf.provenance import code_revision, processor
from train import run_dir


@dataclass
class Row:
    """A line of the table."""

    fault: str
    moment: str
    lost: str
    bitwise: str
    seconds: str
    by_hand: str
    note: str = ""


def row(
    bench: Bench, fault: str, run: Path, since: float, *, by_hand: str = "none", note: str = "", ranks: int = 2
) -> Row:
    """The table's line of a fault that has ended a run, which goes on now."""
    at, committed = last_step(run), run_dir.last_checkpoint(run)
    seconds, bitwise = bench.recover(run, ranks, since=since)
    return Row(fault, f"step {at}", str(at - committed), bitwise, f"{seconds:.0f}", by_hand, note)


def kill_of(bench: Bench, whom: str) -> Row:
    """Kill -9 of a rank, of the launcher, or of all."""
    job = bench.start(bench.folder / f"kill-{whom}")
    job.until(bench.rng.randint(20, STEPS - 30))
    since, ranks = time.monotonic(), job.ranks()
    if whom == "all":
        job.kill()
    else:
        os.kill(ranks[1] if whom == "one rank" else job.process.pid, signal.SIGKILL)
        job.wait()
        while any(Path(f"/proc/{pid}").exists() for pid in ranks):  # the others end by themselves
            time.sleep(0.05)
            assert time.monotonic() - since < 120, "ranks live on"
    note = f"all processes gone after {time.monotonic() - since:.1f} s"
    return row(bench, f"kill -9 of {whom}", job.run, since, note=note)


def kill_during_imports(bench: Bench) -> Row:
    """Torchrun is killed before its ranks have begun."""
    job = bench.start(bench.folder / "kill-imports")
    while not (ranks := job.ranks()):
        time.sleep(0.01)
    time.sleep(bench.rng.uniform(0.0, 4.0))
    since = time.monotonic()
    os.kill(job.process.pid, signal.SIGKILL)
    job.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in ranks):
        time.sleep(0.02)
        assert time.monotonic() - since < 120, "ranks live on"
    note = f"ranks gone after {time.monotonic() - since:.1f} s"
    return row(bench, "kill -9 of the launcher during imports", job.run, since, note=note)


def random_moments(bench: Bench, n: int) -> Row:
    """Kill -9 of all at random moments, every third as soon as a checkpoint is being written, so often."""
    run, lost, waited = bench.folder / "moments", [], []
    saving = 0
    for i in range(n):
        before, begun = last_step(run), time.monotonic()
        committed = run_dir.last_checkpoint(run)
        if committed >= STEPS - EVERY:
            break
        job = bench.start(run)
        while job.alive() and not (last_step(run) > committed and last_step(run) != before):
            time.sleep(0.02)
        waited.append(time.monotonic() - begun)
        if i % 3 == 0:
            while job.alive() and not any(run.glob("checkpoint/*.partial")):
                pass
        time.sleep(bench.rng.uniform(0.0, 0.01 if i % 3 == 0 else 0.8))
        job.kill()
        saving += any(run.glob("checkpoint/*.partial"))
        lost.append(last_step(run) - run_dir.last_checkpoint(run))
    since = time.monotonic()
    _, bitwise = bench.recover(run, since=since)
    note = f"{len(lost)} kills, {saving} of them with a checkpoint half written"
    return Row(
        "kill -9 of all at random moments", f"{len(lost)} times", f"at most {max(lost)}", bitwise,
        f"{sorted(waited)[len(waited) // 2]:.0f} (median)", "none", note,
    )  # fmt: skip


def signalled(bench: Bench, ranks: int, number: signal.Signals) -> Row:
    """A signal to the launcher, or to the only process."""
    job = bench.start(bench.folder / f"{number.name}-{ranks}", ranks)
    job.until(bench.rng.randint(20, STEPS - 30))
    since = time.monotonic()
    os.kill(job.process.pid, number)
    status = job.wait()
    note = f"ended after {time.monotonic() - since:.1f} s with status {status}"
    who = "torchrun of two ranks" if ranks > 1 else "one process"
    return row(bench, f"{number.name} to {who}", job.run, since, note=note, ranks=ranks)


def full_disk(bench: Bench) -> Row:
    """Nothing more fits on the run folder's disk; later something does."""
    disk = bench.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        job = bench.start(disk / "run")
        job.until(bench.rng.randint(20, STEPS - 60))
        filler = disk / "filler"
        with filler.open("wb") as file:
            free = shutil.disk_usage(disk).free
            file.write(b"\0" * (free - 4096 * 3))
        since, status = time.monotonic(), job.wait()
        line = job.said("error: ")
        filler.unlink()
        return row(bench, "full disk", job.run, since, by_hand="make room", note=f"status {status}: {line}")
    finally:
        shutil.copy(disk / "run.log", bench.folder / "full_disk.log")
        subprocess.run(["umount", str(disk)], check=True)


def damaged(bench: Bench, how: str, harm: Callable[[Path], None]) -> Row:
    """The newest checkpoint is not as it was written."""
    job = bench.start(bench.folder / f"harm-{how.replace(' ', '-')}")
    job.until(bench.rng.randint(40, STEPS - 30))
    since = time.monotonic()
    job.kill()
    at = last_step(job.run)
    harm(newest(job.run))
    steps = sorted(int(f.name.split("-")[1]) for f in job.run.glob("checkpoint/step-*") if f.name[5:].isdigit())
    seconds, bitwise = bench.recover(job.run, since=since)
    return Row(
        f"{how} in the newest checkpoint, after kill -9", f"step {at}", str(at - steps[-2]), bitwise,
        f"{seconds:.0f}", "none", job.said("IS DAMAGED"),
    )  # fmt: skip


def unreadable(bench: Bench) -> Row:
    """The newest checkpoint may not be read; root may read everything unless that right is taken from it."""
    job = bench.start(bench.folder / "unreadable")
    job.until(bench.rng.randint(40, STEPS - 30))
    since = time.monotonic()
    job.kill()
    file = newest(job.run)
    file.chmod(0)
    less = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    refused = bench.start(job.run, before=less)
    status = refused.wait()
    line = refused.said("error: ")
    file.chmod(0o644)
    assert status != 0
    return row(bench, "unreadable newest checkpoint, after kill -9", job.run, since, by_hand="chmod", note=line)


def wrong_step(bench: Bench, kind: str) -> Row:
    """One step in which one rank computes something else."""
    step = bench.rng.randint(60, STEPS - 30)
    fault = json.dumps({"kind": kind, "step": step, "rank": "1"})
    job = bench.start(bench.folder / kind, FAULT=fault)
    assert job.wait() == 0, job.tail()
    found = [json.loads(line) for line in (job.run / "bad_steps.jsonl").read_text().splitlines()]
    skipped = ", ".join(str(r["step"]) for r in found)
    ours = {r["step"]: r for r in rows(job.run)}
    before = all(ours[r["step"]] == r for r in bench.reference(2) if r["step"] < step - 1)
    name = "NaN in one rank" if kind == "nan" else "a spike of the loss in one rank"
    return Row(
        name, f"step {step + 1}", "0", "yes before it" if before else "no", "0", "none",
        f"skipped: step {skipped}; {found[0].get('why', '')}",
    )  # fmt: skip


def stopped_rank(bench: Bench) -> Row:
    """A rank that answers no more."""
    job = bench.start(bench.folder / "stopped", 2, "cluster.timeout_seconds=15")
    job.until(bench.rng.randint(20, STEPS - 30))
    since, ranks = time.monotonic(), job.ranks()
    os.kill(ranks[1], signal.SIGSTOP)
    status = job.wait()
    gone = time.monotonic() - since
    line = job.said("error: ")
    return row(
        bench, "SIGSTOP of one rank (timeout 15 s)", job.run, since, note=f"status {status} after {gone:.0f} s: {line}"
    )


def vanished_source(bench: Bench) -> Row:
    """The text that a run is trained on is gone when it goes on."""
    text = bench.folder / "text.txt"
    job = bench.start(bench.folder / "vanished")
    job.until(bench.rng.randint(20, STEPS - 30))
    moved = text.rename(text.with_suffix(".moved"))
    job.until(last_step(job.run) + 5)  # it trains on from its own copy
    since = time.monotonic()
    job.kill()
    refused = bench.start(job.run)
    status = refused.wait()
    line = refused.said("error: ")
    moved.rename(text)
    assert status, refused.tail()
    assert (job.run / "exit_status").read_text() == "2\n", refused.tail()
    return row(bench, "source file gone, after kill -9", job.run, since, by_hand="bring it back", note=line)


def other_ranks(bench: Bench, first: int, then: int, *more: str) -> Row:
    """SIGTERM, and the run goes on with other ranks."""
    job = bench.start(bench.folder / f"ranks-{first}-{then}{'-hsdp' if more else ''}", first)
    job.until(bench.rng.randint(20, STEPS - 30))
    since = time.monotonic()
    os.kill(job.process.pid, signal.SIGTERM)
    job.wait()
    at, committed = last_step(job.run), run_dir.last_checkpoint(job.run)
    again = bench.start(job.run, then, *more)
    while again.alive() and last_step(job.run) <= committed:
        time.sleep(0.05)
    seconds = time.monotonic() - since
    assert again.wait() == 0, again.tail()
    what = f"{first} to {then} ranks" + (" (FSDP to HSDP)" if more else "")
    return Row(what, f"step {at}", str(at - committed), bench.compared(job.run, first), f"{seconds:.0f}", "none")


def flip(path: Path, rng: random.Random) -> None:
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def faults(bench: Bench, moments: int) -> dict[str, Callable[[], Row]]:
    """All of them, by a short name."""

    def cut(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    return {
        "kill-rank": lambda: kill_of(bench, "one rank"),
        "kill-launcher": lambda: kill_of(bench, "the launcher"),
        "kill-all": lambda: kill_of(bench, "all"),
        "kill-imports": lambda: kill_during_imports(bench),
        "kill-moments": lambda: random_moments(bench, moments),
        "sigterm-1": lambda: signalled(bench, 1, signal.SIGTERM),
        "sigterm-2": lambda: signalled(bench, 2, signal.SIGTERM),
        "sigusr1-1": lambda: signalled(bench, 1, signal.SIGUSR1),
        "full-disk": lambda: full_disk(bench),
        "bit": lambda: damaged(bench, "one bit flipped", lambda path: flip(path, bench.rng)),
        "cut": lambda: damaged(bench, "file cut in half", cut),
        "missing": lambda: damaged(bench, "file missing", Path.unlink),
        "unreadable": lambda: unreadable(bench),
        "nan": lambda: wrong_step(bench, "nan"),
        "spike": lambda: wrong_step(bench, "spike"),
        "stopped": lambda: stopped_rank(bench),
        "vanished": lambda: vanished_source(bench),
        "2-1": lambda: other_ranks(bench, 2, 1),
        "1-4": lambda: other_ranks(bench, 1, 4),
        "hsdp": lambda: other_ranks(bench, 2, 2, "parallelism.replicate=2"),
    }


def main() -> None:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="a .md that the table replaces after its line '<!-- table -->'")
    parser.add_argument("--only", default="", help="those whose short name begins so")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--moments", type=int, default=30)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    bench = Bench(folder, random.Random(options.seed))
    (folder / "text.txt").write_text("\n".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))))
    (folder / "fault_plugin.py").write_text(PLUGIN)
    bench.options = [
        *TINY_RUN,
        f"data.source={folder / 'text.txt'}",
        f"data.cache_dir={folder / 'cache'}",
        "early_exit=all",
        "early_exit.curriculum=fault_plugin:exits",
        "layer_dropout=exp_scratch",
        f"train.steps={STEPS}",
        f"checkpoint.every={EVERY}",
        f"validation.every={STEPS}",
    ]
    head = ["fault", "moment", "steps lost", "bitwise", "seconds to recover", "by hand", "note"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print(f"seed {options.seed}, {folder}", flush=True)
    failed: list[str] = []
    for name, fault in faults(bench, options.moments).items():
        if not name.startswith(options.only):
            continue
        try:
            found = fault()
        except AssertionError as error:  # the others are worth having
            print(f"{name}: {error}", flush=True)
            failed.append(name)
            continue
        cells = [found.fault, found.moment, found.lost, found.bitwise, found.seconds, found.by_hand, found.note]
        lines.append("| " + " | ".join(cell.replace("|", "/").replace(str(folder), "...") for cell in cells) + " |")
        print(lines[-1], flush=True)
    where = f"{processor()}, {os.cpu_count()} cores, commit {code_revision()[:12]}, seed {options.seed}"
    if options.output:
        begin = options.output.read_text().partition("<!-- table -->")[0]
        options.output.write_text(f"{begin}<!-- table -->\n\n{where}\n\n" + "\n".join(lines) + "\n")
        shutil.rmtree(folder)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
