"""From a checkpoint to the texts of every engine: this one's first, then the others' on exports of the checkpoint."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from conf.machine import usable_cores
from conf.strict import ConfigError
from eval.engine.agreement import Same, same_texts
from eval.engine.checkpoint import Checkpoint, open_checkpoint
from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, Policy, SelfSpeculative
from eval.engine.stopping import StopRule
from eval.machine import device_and_dtype, provenance
from eval.measure.result_file import output_of
from eval.policies import measured_drafting, unmeasured_drafting
from eval.serving.config import Server, ServingConfig
from eval.serving.job import Answer, Decoded, Job, Text, timed_texts
from eval.serving.others import check_installed, run
from models.convert_config import StoredDtype
from models.storage.errors import FormatError
from models.storage.first_layers import first_layers
from models.storage.folder import exported
from models.storage.gguf.export import export_gguf
from models.storage.stored import Stored

OURS, PLAIN, DRAFTED = "ours", "plain", "drafted"
ROOM = 4.0
"""Engines with kernels of their own may part from us where logits are so many times as far apart as our passes of
different widths may bring them. Seen in one of twelve texts of llama.cpp: 341 steps of float32, where 256 are ours."""


class Way(NamedTuple):
    """Whose decoder, and whether the first layers draft."""

    system: str
    """`ours` or a Server."""
    mode: str
    """PLAIN or DRAFTED."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a way has decoded."""

    answer: Answer
    same: Same
    """Compared with our plain decoding's texts."""

    @property
    def tokens_per_second(self) -> float:
        """Of a text, its prompt's pass included; the median text."""
        return 1 / median(text.seconds / max(1, len(text.tokens)) for text in self.answer.texts)

    @property
    def drafted(self) -> int:
        """Tokens in all texts."""
        return sum(text.drafted for text in self.answer.texts)

    @property
    def accepted(self) -> int:
        """Drafted tokens that became text."""
        return sum(text.accepted for text in self.answer.texts)


class Served(NamedTuple):
    """Everything that was measured, and on what."""

    ways: dict[Way, Measured]
    exit_layer: int
    num_speculations: int
    facts: dict[str, Any]
    output: Path


def serve(config: ServingConfig) -> Served:
    """Decode with every engine. Raises ConfigError, DataError or FormatError."""
    servers = list(dict.fromkeys(config.servers))
    check_installed(config.python, servers)
    device, dtype = device_and_dtype(config.machine)
    checkpoint = open_checkpoint(config.checkpoint)
    output = output_of(config, checkpoint.stored, "serving")
    known = measured_drafting(checkpoint) or unmeasured_drafting(checkpoint)
    exit_layer = known.exit_layer if config.exit_layer is None else config.exit_layer
    drafting = first_layers(checkpoint.stored, exit_layer)
    job = _job(config, checkpoint, known.num_speculations, dtype)
    torch.set_num_threads(job.threads)
    facts = {
        "checkpoint": config.checkpoint,
        "task": config.task.name,
        "n_texts": len(job.prompts),
        "compiled": config.compile,
        **asdict(provenance(device, dtype, job.threads)),
    }
    model = checkpoint.model(dtype, device, **config.machine.model_options)
    engine, version = Engine(model, job.context), f"torch {torch.__version__}"
    policies: dict[str, Policy] = {PLAIN: Autoregressive(), DRAFTED: SelfSpeculative(exit_layer, job.num_drafts)}
    ours = {mode: _ours(engine, policy, job) for mode, policy in policies.items()}
    answers = {Way(OURS, mode): Answer(version=version, start_seconds=0.0, texts=its) for mode, its in ours.items()}
    for server in servers:
        with _exports(server, checkpoint.stored, drafting, job.dtype) as (whole, draft):
            for mode in (PLAIN, DRAFTED):
                print(f"{server} {mode} ...", file=sys.stderr, flush=True)
                asked = replace(job, model=str(whole), draft=str(draft) if mode == DRAFTED else None)
                answers[Way(server.value, mode)] = run(server, asked, config.python)
    texts = {way: [text.tokens for text in its.texts] for way, its in answers.items()}
    same = {way: same_texts(model, job.prompts, texts[Way(OURS, PLAIN)], its, ROOM) for way, its in texts.items()}
    ways = {way: Measured(answer=its, same=same[way]) for way, its in answers.items()}
    return Served(ways, exit_layer, job.num_drafts, facts, output)


def _job(config: ServingConfig, checkpoint: Checkpoint, num_drafts: int, dtype: torch.dtype) -> Job:
    """What all engines are asked, without the files that they read. Raises ConfigError for texts that do not fit."""
    tokenizer, most = checkpoint.tokenizer, checkpoint.stored.size.max_seq_len
    prompts = [list(sample.tokens) for sample in config.task.samples(checkpoint).samples]
    d = num_drafts if config.num_speculations is None else config.num_speculations
    n_new = config.task.stop(tokenizer).max_new_tokens
    context = max(map(len, prompts)) + n_new + d + 1
    if context > most:
        raise ConfigError(f"task: prompts and texts of {context} tokens, drafts included, exceed the context's {most}")
    return Job(
        model="",
        draft=None,
        num_drafts=d,
        prompts=prompts,
        max_new_tokens=n_new,
        eos_id=tokenizer.eos_id,
        context=context,
        threads=config.machine.threads or usable_cores(),
        dtype=str(dtype).removeprefix("torch."),
        compiled=config.compile,
        rounds=config.rounds,
    )


def _ours(engine: Engine, policy: Policy, job: Job) -> list[Text]:
    stop = StopRule(max_new_tokens=job.max_new_tokens, eos_ids=frozenset({job.eos_id}))

    def decode(prompt: list[int]) -> Decoded:
        rounds = list(engine.generate(prompt, policy, stop))
        tokens = [token for round_ in rounds for token in round_.tokens]
        return tokens, sum(r.n_drafted for r in rounds), sum(r.n_accepted for r in rounds)

    return timed_texts(job, decode)


@contextmanager
def _exports(server: Server, whole: Stored, draft: Stored, dtype: str) -> Iterator[Sequence[Path]]:
    """The whole model and the draft in the form that the engine reads, for as long as it reads them."""
    if server is Server.vllm:
        with exported(whole) as one, exported(draft) as other:
            yield one, other
        return
    with TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("whole.gguf", "draft.gguf")]
        for stored, file in zip((whole, draft), files, strict=True):
            try:
                export_gguf(stored, whole.size, file, dtype=StoredDtype(dtype))
            except FormatError as error:
                raise ConfigError(f"servers: llama_cpp cannot have this model ({error})") from None
        yield files
