"""What a model has answered so far, in a file, so that a command that was killed goes on where it was."""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.json_log import JsonLog
from eval.lm.likelihoods import Likelihood


class Answers:
    """Question -> answer. What is asked again is not computed again."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self._log: JsonLog[tuple[str, Any]] | None = None

    @contextmanager
    def kept(self, output: Path, who: dict[str, Any], *, fresh: bool) -> Iterator[None]:
        """Keep answers in a file beside the output while a command runs, and begin with those that it holds.

        The file's name carries a digest of `who`, all that answers depend on besides the questions. It is removed once
        the command has written its results, and stays if the command fails. `fresh` begins anew.

        Raises ConfigError while another process writes the file, DataError when it is damaged.
        """
        path = output.with_name(f"{output.stem}.answers-{question(who)[:8]}.jsonl")
        mismatch = f"{path}:1: answers of another model; fresh=true writes the file anew"
        with JsonLog(path, header=who, read=_answer, write=list, mismatch=mismatch, fresh=fresh) as log:
            if log.entries:
                print(f"goes on after {len(log.entries):,} answers of an earlier start", file=sys.stderr)
            self.known, self._log = dict(log.entries), log
            yield
            log.remove()

    def add(self, answers: dict[str, Any]) -> None:
        """Remember some."""
        self.known |= answers
        if self._log is not None:
            self._log.add(list(answers.items()))


def question(*parts: Any) -> str:
    """A short name of what is asked."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def likelihood_of(answer: Any) -> Likelihood:
    """From what is read in a file, or is in memory."""
    return Likelihood(*answer)


def _answer(value: Any) -> tuple[str, Any]:
    key, answer = value
    return key, answer
