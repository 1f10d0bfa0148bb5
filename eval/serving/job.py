"""What the program of another engine is asked, and what it answers: JSON in, JSON out.

Those programs run in an environment of their own, so that this file imports nothing but the standard library.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter


@dataclass(frozen=True, kw_only=True)
class Job:
    """Texts to decode greedily, one after another."""

    model: str
    """Folder or file of the whole model."""
    draft: str | None
    """Folder or file of the draft model; None: decode plainly."""
    num_drafts: int
    """Tokens that it drafts in a round."""
    prompts: list[list[int]]
    max_new_tokens: int
    eos_id: int
    """The token that ends a text."""
    context: int
    """Positions of prompt and text."""
    threads: int
    dtype: str
    """float32, bfloat16 or float16."""
    compiled: bool
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Text:
    """One that was decoded."""

    tokens: list[int]
    """The new ones; a token that ends the text and what follows it are cut off."""
    seconds: float
    """From the prompt to the last token; the fastest of the rounds."""
    drafted: int
    accepted: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a job."""

    version: str
    """The engine's."""
    start_seconds: float
    """Until it could decode."""
    texts: list[Text]


Decoded = tuple[list[int], int, int]
"""New tokens, and the numbers of drafted and of accepted ones."""


def answer(start: Callable[[Job], tuple[str, Callable[[list[int]], Decoded]]]) -> None:
    """Read a job from the file that the command line names first, and write its answer to the second.

    Args:
        start: makes the engine; gives its version, and what decodes a prompt.
    """
    source, target = map(Path, sys.argv[1:])
    job = Job(**json.loads(source.read_text()))
    begin = perf_counter()
    version, decode = start(job)
    seconds = perf_counter() - begin
    found = Answer(version=version, start_seconds=seconds, texts=timed_texts(job, decode))
    target.write_text(json.dumps(asdict(found)))


def timed_texts(job: Job, decode: Callable[[list[int]], Decoded]) -> list[Text]:
    """Every prompt's text, after one that is not counted."""
    texts = []
    decode(job.prompts[0])  # the first pass allocates
    for prompt in job.prompts:
        taken = []
        for _ in range(job.rounds):
            begin = perf_counter()
            tokens, drafted, accepted = decode(prompt)
            taken.append(perf_counter() - begin)
        ended = tokens.index(job.eos_id) if job.eos_id in tokens else len(tokens)
        texts.append(Text(tokens=tokens[:ended], seconds=min(taken), drafted=drafted, accepted=accepted))
    return texts


def answer_from(content: str) -> Answer:
    """From what a program has written."""
    value = json.loads(content)
    return Answer(**{**value, "texts": [Text(**text) for text in value["texts"]]})
