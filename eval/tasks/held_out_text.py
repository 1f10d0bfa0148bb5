"""Prompts for measurements: pieces of held-out text, spread evenly over it."""

import itertools
from array import array

import numpy as np
from omegaconf import OmegaConf

from conf.strict import ConfigError
from data.config import DataConfig, DataError, SourceConfig
from data.corpus import prepare
from data.prepared.shards import Shard, Tokens
from data.sources.reading import read_documents
from eval.engine.checkpoint import Checkpoint

MOST_DOCUMENTS = 1000  # which are plenty for prompts


def held_out_prompts(checkpoint: Checkpoint, source: str | None, n_prompts: int, prompt_tokens: int) -> list[list[int]]:
    """`n_prompts` prompts of `prompt_tokens` tokens.

    Args:
        checkpoint: whose tokenizer, and whose held-out text if no source is given.
        source: a file, folder or glob of .txt, .md, .py or .jsonl, or `stdlib`.
        n_prompts: how many.
        prompt_tokens: length of each.

    Raises ConfigError when there is too little text, DataError when it cannot be read.
    """
    tokens = run_tokens(checkpoint) if source is None else source_tokens(checkpoint, source, MOST_DOCUMENTS)
    room = len(tokens) // n_prompts
    if room < prompt_tokens:
        raise ConfigError(
            f"task.n_samples={n_prompts}: the text has {len(tokens):,} tokens, too few for so many of {prompt_tokens}"
        )
    return [tokens.read(i * room, i * room + prompt_tokens).tolist() for i in range(n_prompts)]


def run_tokens(checkpoint: Checkpoint) -> Tokens:
    """The text that was held out of a run. Raises ConfigError for what is no run, DataError for text that changed."""
    run, folder = checkpoint.stored.run or {}, checkpoint.stored.folder
    if "data" not in run:
        raise ConfigError(f"source: missing; {folder} is no run folder, so no text was held out for it")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), run["data"]))
    assert isinstance(config, DataConfig)
    corpus = prepare(config)
    if corpus.tokenizer.files != checkpoint.tokenizer.files:
        raise DataError(
            f"{', '.join(s.path for s in config.sources.values())}: has changed since {folder} was trained on it, so"
            " what is held out now may have been trained on; give other text with source=..."
        )
    return corpus.validation


def source_tokens(
    checkpoint: Checkpoint, source: str, most_documents: int | None = None, text_field: str = "text"
) -> Tokens:
    """Whole documents, each with what begins and ends it; None: all of them. Raises DataError."""
    ids, rows = array("q"), []
    for document in itertools.islice(read_documents(SourceConfig(path=source, text_field=text_field)), most_documents):
        ids.extend(checkpoint.tokenizer.encode_document(document.text))
        rows.append((len(ids), 0))
    return Tokens([Shard(np.array(ids, np.int64), np.array(rows, np.int64).reshape(-1, 2))])
