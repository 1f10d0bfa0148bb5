"""The length of a run and the size of a step counted in records: known once the data has been packed into rows.

The samples that a paper counts are records; a row holds several (docs/data.md).
"""

import logging
import math
from dataclasses import replace

from conf.strict import ConfigError
from data.corpus import Corpus
from data.training import Records, count_records, keeps_apart
from train.config import PretrainConfig, TrainConfig, check_together

logger = logging.getLogger(__name__)


def counted(config: PretrainConfig, corpus: Corpus, world_size: int) -> PretrainConfig:
    """The configuration with the rows and steps that `train.records_per_step` and `train.epochs` come to.

    Says how many records the run reads, where records are what it is made of. Raises ConfigError for a stream, whose
    records cannot be counted, and for values that are not possible together.
    """
    options = config.train
    keys = options.asked_in_records()
    if not keys and not keeps_apart(corpus, config.data):
        return config
    records = count_records(corpus, config.data, options.seq_len)
    if records is None:
        if keys:
            raise ConfigError(f"{keys[0]}: a stream has no known number of records; give train.steps and rows instead")
        return config
    config.train = in_rows(options, records, config.parallelism.data_ranks(world_size))
    try:
        check_together(config, world_size)
    except ValueError as error:
        raise ConfigError(f"{', '.join(keys)}: {error}") from None
    logger.info(described(config.train, records))
    return config


def check_apart(config: PretrainConfig, corpus: Corpus) -> None:
    """Raise ConfigError where records are to be kept apart and cannot be."""
    if config.parallelism.context > 1 and keeps_apart(corpus, config.data):
        raise ConfigError(
            f"parallelism.context={config.parallelism.context}: documents of a row cannot be kept apart under it; set"
            " data.attend_across_documents=true, or take parallelism.context=1"
        )


def in_rows(options: TrainConfig, records: Records, data_ranks: int) -> TrainConfig:
    """Options whose steps and rows are numbers, from what they ask for in records.

    Rows of a step are a multiple of what all ranks take at a time: of one row each without gradient accumulation.
    """
    local, n_rows, steps = options.local_batch_size or 1, options.global_batch_size, options.steps
    if options.records_per_step is not None:
        accumulates = local * data_ranks < n_rows
        unit = data_ranks * (local if accumulates else 1)
        n_rows = unit * max(1, round(options.records_per_step / records.per_row / unit))
        local = local if accumulates else n_rows // data_ranks
    if options.epochs is not None:
        steps = max(1, math.ceil(options.epochs * records.n_rows / n_rows))
    return replace(options, steps=steps, global_batch_size=n_rows, local_batch_size=local)


def described(options: TrainConfig, records: Records) -> str:
    """One line: what a row holds, and how often the run reads each record."""
    n_rows = options.steps * options.global_batch_size
    return (
        f"a row of {options.seq_len} tokens holds {records.per_row:.2f} records on average: {options.steps:,} steps of"
        f" {options.global_batch_size:,} rows read {n_rows * records.per_row:,.0f} records,"
        f" {n_rows / records.n_rows:.3g} times the {records.n_records:,} there are"
    )
