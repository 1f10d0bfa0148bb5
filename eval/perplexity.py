"""How well every exit predicts a text: `python -m eval.perplexity checkpoint=... source=...`."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from conf.command import command
from conf.strict import ConfigError, convert
from eval.depth.exit_choice import chosen_exits
from eval.depth.perplexity_config import PerplexityConfig
from models.exit_quality import quality_table

if TYPE_CHECKING:
    from eval.depth.plot import Curve
    from eval.engine.checkpoint import Checkpoint


def perplexity(raw: DictConfig) -> list[dict[str, Any]]:
    """Measure, print the table, write JSON, CSV and plot."""
    config = convert(raw, PerplexityConfig)
    from eval.depth.plot import plot_by_exit
    from eval.depth.quality import exit_qualities
    from eval.depth.windows import rows_of
    from eval.engine.checkpoint import open_checkpoint
    from eval.engine.threads import Threads, one_window
    from eval.machine import batch_size_of, device_and_dtype, provenance
    from eval.measure.result_file import output_of
    from eval.results.table import save_rows
    from eval.tasks.held_out_text import run_tokens, source_tokens

    device, dtype = device_and_dtype(config.machine)
    checkpoint = open_checkpoint(config.checkpoint)
    n_layers = checkpoint.stored.size.n_layers
    exits = sorted({*chosen_exits(config.exit_layers, n_layers), n_layers})
    seq_len, stride = window(config, checkpoint)
    output = output_of(config, checkpoint.stored, "perplexity")
    tokens = (
        run_tokens(checkpoint)
        if config.source is None
        else source_tokens(checkpoint, config.source, text_field=config.text_field)
    )
    if len(tokens) < 2:
        raise ConfigError(f"source={config.source}: has {len(tokens)} tokens, too few to predict one from another")
    if tokens.has_prompts and config.stride is not None:
        raise ConfigError(
            f"stride={config.stride}: the text is records of a prompt and a completion, each measured by itself, not in"
            " windows; leave it out"
        )
    text, per_row, cut = rows_of(tokens, seq_len, stride)
    n_rows = None if config.max_tokens is None else math.ceil(config.max_tokens / per_row)
    token_bytes = checkpoint.tokenizer.token_bytes()
    model = checkpoint.model(dtype, device, **config.machine.model_options)
    threads = Threads(config.machine.threads, device, one_window(model, text.seq_len))
    batch_size = batch_size_of(config.batch_size, model.size, text.seq_len, dtype, device)
    n_tokens, qualities = exit_qualities(model, text, exits, token_bytes, n_rows, batch_size, threads.refresh)
    facts = {
        "tokens": n_tokens,
        "seq_len": seq_len,
        "stride": stride,
        "batch_size": batch_size,
        "checkpoint": config.checkpoint,
        "source": config.source or "held out",
        **asdict(provenance(device, dtype, int8=config.machine.int8)),
    }
    rows = [{**quality._asdict(), **facts} for quality in qualities]
    csv = save_rows(rows, output)
    heading = f"{config.checkpoint}: {n_tokens:,} tokens of {config.source or 'held-out text'}, by exit layer"
    picture = plot_by_exit(_curves(rows), output.with_suffix(".png"), heading)
    print(quality_table(qualities))
    print(f"{n_tokens:,} tokens of {config.source or 'held-out text'}, {cut}")
    print(output, csv, picture, sep="\n")
    return rows


def _curves(rows: list[dict[str, Any]]) -> list["Curve"]:
    from eval.depth.plot import Curve

    names = {
        "perplexity": "perplexity",
        "bits_per_byte": "bits per byte",
        "agreement": "agreement with the last layer",
        "acceptance": "acceptance by the last layer",
    }
    layers = [row["exit_layer"] for row in rows]
    return [
        Curve(title="", label=label, exits=layers, values=[row[key] for row in rows], log=key == "perplexity")
        for key, label in names.items()
    ]


def window(config: PerplexityConfig, checkpoint: "Checkpoint") -> tuple[int, int]:
    """Length and stride. Raises ConfigError for impossible ones."""
    context, run = checkpoint.stored.size.max_seq_len, checkpoint.stored.run or {}
    seq_len = config.seq_len or min(context, run.get("train", {}).get("seq_len", context))
    if seq_len > context:
        raise ConfigError(f"seq_len={seq_len}: must be at most the context's {context}")
    stride = config.stride or seq_len
    if stride > seq_len:
        raise ConfigError(f"stride={stride}: must be at most seq_len={seq_len}, or tokens would be passed over")
    return seq_len, stride


if __name__ == "__main__":
    command("perplexity", PerplexityConfig, perplexity)
