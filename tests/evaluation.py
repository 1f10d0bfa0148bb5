"""Helpers of the tests of eval: a byte tokenizer, a checkpoint without weights, data sets in the published formats."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from conf.provenance import Provenance
from eval.measure.facts import Facts
from eval.measure.records import Record
from eval.tasks.task import Selection

FACTS = Facts(
    checkpoint="c",
    selection=Selection(),
    provenance=Provenance(hardware="h", threads=1, dtype="float32", torch="2", commit="abc"),
)


class Bytes:
    """Ids are bytes; 256 begins a text, 257 ends it."""

    bos_id, eos_id, vocab_size = 256, 257, 258

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_prompt(self, text: str) -> list[int]:
        return [self.bos_id, *self.encode(text)]

    def encode_document(self, text: str) -> list[int]:
        return [*self.encode_prompt(text), self.eos_id]

    def decode(self, ids: list[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def piece(self, i: int) -> bytes:
        return bytes([i]) if i < 256 else b""


def checkpoint(context: int = 100_000) -> Any:
    size = SimpleNamespace(max_seq_len=context, n_layers=4)
    return SimpleNamespace(tokenizer=Bytes(), stored=SimpleNamespace(size=size))


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def articles(path: Path, n: int, name: str = "a") -> Path:
    """In the format of CNN/DM."""
    rows = [
        {"id": f"{name}{i}", "article": f"{name} article {i} says much.", "highlights": f"One {i} .\nTwo {i} ."}
        for i in range(n)
    ]
    return write_jsonl(path, rows)


def record(**changes: Any) -> Record:
    """Autoregressive decoding of 8 tokens in 8 s, a second each."""
    n = len(changes.get("tokens", range(8)))
    fields: dict[str, Any] = {
        "task": "t",
        "id": "0",
        "group": "",
        "repeat": 0,
        "mode": "autoregressive",
        "exit_layer": 4,
        "num_speculations": 0,
        "exit_states": None,
        "policy": None,
        "prompt_tokens": 2,
        "tokens": list(range(1, 9)),
        "text": "",
        "scores": {},
        "seconds": 8.0,
        "cpu_seconds": 16.0,
        "emitted": [1] * n,
        "drafted": [0] * n,
        "accepted": [0] * n,
        "round_seconds": [1.0] * n,
        "identical": True,
        "passes": [1, 1, 1, 1, 0, 0],
    }
    return Record(**fields | changes)


def speculative(**changes: Any) -> Record:
    """The same text in 4 s and two rounds, 2 and 3 of 3 drafts accepted."""
    fields: dict[str, Any] = {
        "mode": "self_speculative",
        "exit_layer": 2,
        "num_speculations": 3,
        "exit_states": "reuse",
        "seconds": 4.0,
        "cpu_seconds": 8.0,
        "emitted": [1, 3, 4],
        "drafted": [0, 3, 3],
        "accepted": [0, 2, 3],
        "round_seconds": [1.0, 1.5, 1.5],
        "passes": [1, 1, 1, 0.2, 0.1, 1],
    }
    return record(**fields | changes)
