"""From a folder to times: each system's best setting by its own grid, then all of them in turns, prompt by prompt."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from conf.progress import Bar, progress
from data.json_log import JsonLog
from eval.engine.agreement import Same, same_texts
from eval.engine.checkpoint import open_checkpoint
from eval.engine.decoding import Engine
from eval.engine.threads import Threads, one_token
from eval.machine import device_and_dtype, provenance
from eval.measure.identity import conditions, samples_digest, weights_digest
from eval.measure.result_file import output_of
from eval.measure.samples_file import samples_log, samples_path
from eval.peers.config import Peer, PeersConfig
from eval.peers.systems import (
    LOOKUP,
    PLAIN,
    SPECULATION,
    Decode,
    Way,
    check_installed,
    economize_decoder,
    hf_model,
    modes_of,
    ours,
    transformers_decoder,
)
from eval.policies import drafting_exits
from models.storage.folder import exported


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One batch of prompts by one decoder."""

    stage: str
    """grid or contest."""
    batch: int
    """Number of the batch of prompts."""
    way: Way
    seconds: float
    cpu_seconds: float
    tokens: list[list[int]]
    """The new ones of each prompt."""

    @property
    def seconds_per_token(self) -> float:
        """Of wall time, the prefill included."""
        return self.seconds / sum(map(len, self.tokens))

    @property
    def key(self) -> tuple[str, int, Way]:
        """What it is a measurement of."""
        return self.stage, self.batch, self.way

    def as_json(self) -> dict[str, Any]:
        """A line of the samples' file."""
        return asdict(self) | {"way": list(self.way)}


def measurement_from_json(value: Mapping[str, Any]) -> Measurement:
    """From its line; raises KeyError or TypeError for anything else."""
    return Measurement(**{**value, "way": Way(*value["way"])})


class Compared(NamedTuple):
    """What was measured, and on what."""

    contest: dict[Way, list[Measurement]]
    """By batch; ours first, plain first."""
    same: dict[Way, Same]
    facts: dict[str, Any]
    output: Path
    samples_file: Path


def compare_peers(config: PeersConfig) -> Compared:
    """Measure what an earlier start of the same settings has not. Raises ConfigError, DataError or FormatError."""
    systems = [Peer.ours, *(peer for peer in dict.fromkeys(config.systems) if peer is not Peer.ours)]
    check_installed(systems)
    device, dtype = device_and_dtype(config.machine)
    checkpoint = open_checkpoint(config.checkpoint)
    output = output_of(config, checkpoint.stored, "compare_peers")
    chosen = config.task.samples(checkpoint)
    prompts = [sample.tokens for sample in chosen.samples]
    batches = [prompts[i : i + config.batch_size] for i in range(0, len(prompts), config.batch_size)]
    stop, size = config.task.stop(checkpoint.tokenizer), checkpoint.stored.size
    grid = _grid(config, size.n_layers)
    with exported(checkpoint.stored) as folder:
        model = open_checkpoint(folder).model(dtype, device, **config.machine.model_options)
        Threads(config.machine.threads, device, one_token(model))
        facts = {
            "checkpoint": config.checkpoint,
            "task": config.task.name,
            "batch_size": config.batch_size,
            "compiled": False,
            **{f"version_of_{p}": version(p) for p in systems if p is not Peer.ours},
            **asdict(provenance(device, dtype)),
        }
        settings = conditions(facts, "eval.peers.contest", type(config.task).__module__) | {
            "task": asdict(config.task),
            "samples": samples_digest(chosen.samples),
            "weights": weights_digest(checkpoint.stored),
            "systems": [peer.value for peer in systems],
            "grid": [list(way) for way in grid],
            "grid_samples": config.grid_samples,
        }
        engine = Engine(model, max(map(len, prompts)) + stop.max_new_tokens, config.batch_size)
        decoders = {Peer.ours: ours(engine, stop)}
        if len(systems) > 1:
            theirs = hf_model(folder, dtype, device)
            makers = {Peer.transformers: transformers_decoder, Peer.economize: economize_decoder}
            decoders |= {peer: makers[peer](theirs, stop) for peer in systems if peer is not Peer.ours}
        path = samples_path(output, settings)
        with samples_log(path, settings, measurement_from_json, Measurement.as_json, fresh=config.fresh) as log:
            contest = _Contest(log, decoders, batches)
            wanted = [Way(p.value, mode) for p in systems for mode in modes_of(p, config.batch_size)]
            found = contest.run(grid, wanted, config.grid_samples)
        texts = {way: [tokens for m in its for tokens in m.tokens] for way, its in found.items()}
        same = {way: same_texts(model, prompts, texts[wanted[0]], its) for way, its in texts.items()}
        return Compared(found, same, facts, output, path)


def _grid(config: PeersConfig, n_layers: int) -> list[Way]:
    """The settings of E and d that are tried, which every system shares."""
    half = max(1, n_layers // 2)
    exits = drafting_exits(config.exit_layers or [max(1, round(half * i / 5)) for i in range(1, 6)], n_layers)
    found = []
    for peer in dict.fromkeys([Peer.ours, *config.systems]):
        modes = modes_of(peer, config.batch_size)
        if SPECULATION in modes:
            found += [Way(peer.value, SPECULATION, e, d) for e in exits for d in sorted(set(config.num_speculations))]
        if LOOKUP in modes:
            found += [Way(peer.value, LOOKUP, 0, d) for d in sorted(set(config.looked_up))]
    return found


class _Contest:
    """Decoders in turns, so that a machine that changes its speed changes it for all."""

    def __init__(
        self, log: JsonLog[Measurement], decoders: Mapping[Peer, Decode], batches: Sequence[Sequence[list[int]]]
    ) -> None:
        self.log, self.decoders, self.batches = log, decoders, batches
        self.found = {m.key: m for m in log.entries}
        self.warm = set[Way]()

    def run(self, grid: Sequence[Way], wanted: Sequence[Way], grid_samples: int) -> dict[Way, list[Measurement]]:
        """The grid on the first batches; then plain ways, and of the others the best of it, on all batches."""
        tried = range(min(len(self.batches), grid_samples))
        total = len(tried) * len(grid) + len(self.batches) * len(wanted)
        with progress("compare_peers", unit="text", total=total, initial=len(self.found)) as bar:
            turns = [("grid", i, grid) for i in tried]
            self._take(turns, bar)
            ways = [way if way.mode == PLAIN else self._best(grid, way, tried) for way in wanted]
            self._take([("contest", i, ways) for i in range(len(self.batches))], bar)
        return {way: [self.found["contest", i, way] for i in range(len(self.batches))] for way in ways}

    def _take(self, turns: Sequence[tuple[str, int, Sequence[Way]]], bar: Bar) -> None:
        for stage, batch, ways in turns:
            at = batch * 7 % len(ways)  # another first one each time, and backwards every other time
            for way in [*ways[at:], *ways[:at]][:: -1 if batch % 2 else 1]:
                if (stage, batch, way) not in self.found:
                    bar.set_postfix_str(way.label)
                    self._measure(stage, batch, way)
                    bar.update()

    def _measure(self, stage: str, batch: int, way: Way) -> None:
        decode, prompts = self.decoders[Peer(way.system)], self.batches[batch]
        if way not in self.warm:  # the first pass allocates
            decode(way, prompts)
            self.warm.add(way)
        cpu, start = time.process_time(), time.perf_counter()
        tokens = decode(way, prompts)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        found = Measurement(stage=stage, batch=batch, way=way, seconds=seconds, cpu_seconds=cpu, tokens=tokens)
        self.log.add([found])
        self.found[found.key] = found

    def _best(self, grid: Sequence[Way], wanted: Way, tried: range) -> Way:
        """The fastest setting of a system's mode, by the median over the batches of the time per token."""
        own = [way for way in grid if way[:2] == wanted[:2]]
        return min(own, key=lambda way: median(self.found["grid", i, way].seconds_per_token for i in tried))
