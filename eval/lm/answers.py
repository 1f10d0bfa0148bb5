"""What a model has answered so far, in a file, so that a command that was killed goes on where it was."""

import hashlib
import json
from pathlib import Path
from typing import Any

from data.files import write_whole
from eval.lm.likelihoods import Likelihood


class Answers:
    """Question -> answer, each a line of the file as soon as it is known; what is asked again is not computed again.

    The first line says who answers: a file of another model, exit or precision is begun anew.
    """

    def __init__(self) -> None:
        """In memory alone, until `keep`."""
        self.known: dict[str, Any] = {}
        self.path: Path | None = None

    def keep(self, path: Path, who: dict[str, Any]) -> int:
        """Take what an earlier command has left in the file, and write there from now on; how many answers it had."""
        head = json.dumps(who)
        lines = path.read_text().split("\n")[:-1] if path.exists() else []  # a kill may have cut the last line short
        lines = lines if lines and lines[0] == head else [head]
        self.known = dict(json.loads(line) for line in lines[1:])
        write_whole(path, "".join(line + "\n" for line in lines).encode())
        self.path = path
        return len(self.known)

    def add(self, answers: dict[str, Any]) -> None:
        """Remember some."""
        self.known |= answers
        if self.path is not None:
            with self.path.open("a") as file:
                file.writelines(json.dumps(item) + "\n" for item in answers.items())

    def done(self) -> None:
        """Remove the file: all that was asked is answered, and written where it belongs."""
        if self.path is not None:
            self.path.unlink()


def question(*parts: Any) -> str:
    """A short name of what is asked."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def likelihood_of(answer: Any) -> Likelihood:
    """From what is read in a file, or is in memory."""
    return Likelihood(*answer)
