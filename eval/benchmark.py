"""Time plain decoding, early exit and self-speculation of one checkpoint: `python -m eval.benchmark checkpoint=...`."""

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.strict import ConfigError, convert
from data.config import DataError
from eval.benchmark_config import BenchmarkConfig
from eval.grid import policies
from eval.load import open_checkpoint
from eval.machine import facts, settle
from eval.measure import measure
from eval.prompts import held_out_prompts
from eval.reference import Transformers
from eval.rows import Row, rows_of
from eval.table import best_line, save, table
from models.hf_config import FormatError


def benchmark(raw: DictConfig) -> list[Row]:
    """Measure, print the table, write JSON and CSV."""
    config = convert(raw, BenchmarkConfig)
    device, dtype = settle(config.machine)
    checkpoint = open_checkpoint(config.checkpoint)
    size = checkpoint.stored.size
    n_tokens = config.prompt_tokens + config.max_new_tokens
    if n_tokens > size.max_seq_len:
        raise ConfigError(
            f"prompt_tokens + max_new_tokens={n_tokens}: must be at most the context's {size.max_seq_len}"
        )
    chosen = policies(size.n_layers, config.exit_layers, config.num_speculations)
    output = writable(config.output or checkpoint.stored.folder / "benchmark.json")
    prompts = held_out_prompts(checkpoint, config.source, config.n_prompts, config.prompt_tokens)
    reference = Transformers(checkpoint, dtype, device) if config.transformers else None
    model = checkpoint.model(dtype, device)
    measured = measure(model, reference, prompts, chosen, config.max_new_tokens, config.repeats)
    stated = {"checkpoint": config.checkpoint, "source": config.source or "held out", **facts(device, dtype)}
    rows = rows_of(model, measured, prompts, stated)
    csv = save(rows, output)
    print(table(rows))
    print(best_line(rows))
    print(f"{output}, {csv}")
    return rows


if __name__ == "__main__":
    command("benchmark", BenchmarkConfig, benchmark, told={DataError: 2, FormatError: 2})
