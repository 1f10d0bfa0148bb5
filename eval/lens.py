"""What every layer predicts at every position, as a page: `python -m eval.lens checkpoint=... prompt=...`."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.command import command
from conf.strict import ConfigError, convert
from data.files import write_whole
from eval.depth.lens_config import LensConfig
from eval.engine.stopping import StopRule
from eval.pages.page import page, write_page
from eval.prompts.prompt_text import prompt_text

if TYPE_CHECKING:
    from models.inference import InferenceLlama


def lens(raw: DictConfig) -> None:
    """Read the text once, write the page, and print how many layers its tokens need."""
    config = convert(raw, LensConfig)
    from eval.depth.lens import predictions
    from eval.depth.lens_record import Reading, lens_record, summary_lines
    from eval.engine.checkpoint import open_checkpoint
    from eval.engine.policy import Autoregressive
    from eval.engine.threads import Threads, one_token
    from eval.machine import device_and_dtype, provenance
    from eval.measure.result_file import output_of
    from eval.pages.token_display import display_by_id
    from eval.policies import check_decodable

    device, dtype = device_and_dtype(config.machine)
    checkpoint = open_checkpoint(config.checkpoint)
    tokenizer, size = checkpoint.tokenizer, checkpoint.stored.size
    if config.top_k > size.vocab_size:
        raise ConfigError(f"top_k={config.top_k}: must be at most the vocabulary's {size.vocab_size}")
    text = prompt_text(config.prompt, config.prompt_file)
    output = output_of(config, checkpoint.stored, "lens", ".html", text=text)
    prompt = tokenizer.encode_prompt(text)
    model = checkpoint.model(dtype, device, **config.machine.model_options)
    Threads(config.machine.threads, device, one_token(model))
    check_decodable(model, Autoregressive(), prompt)
    generated = _generated(model, prompt, config.max_new_tokens, tokenizer.eos_id) if config.max_new_tokens else []
    tokens = prompt + generated[:-1]  # the last one is what the last position predicts
    first = max(0, len(tokens) - config.max_positions)
    try:
        found = predictions(model, tokens, first, config.top_k)
    except FloatingPointError as error:
        raise ConfigError(
            f"machine.dtype={config.machine.dtype}: {error}; take a wider one, or see whether the weights are whole"
        ) from None
    facts = {"checkpoint": config.checkpoint, **asdict(provenance(device, dtype, int8=config.machine.int8))}
    record = lens_record(tokenizer, Reading(tokens, len(generated), first, found))
    content = record.as_json(facts)
    data = content | {"shown": display_by_id(tokenizer, map(int, record.text))}
    write_page(output, page(view="lens", title="Predictions of every layer", facts=facts, data=data))
    numbers = output.with_suffix(".json")
    write_whole(numbers, json.dumps(content).encode())
    if first:
        print(f"{len(tokens):,} positions: the last {len(tokens) - first:,} are shown (max_positions)", file=sys.stderr)
    print(summary_lines(record))
    print(output, numbers, sep="\n")


def _generated(model: "InferenceLlama", prompt: list[int], max_new_tokens: int, eos_id: int) -> list[int]:
    """What all layers go on with, greedily."""
    from eval.engine.decoding import Engine
    from eval.engine.policy import Autoregressive

    stop = StopRule(max_new_tokens=max_new_tokens, eos_ids=frozenset({eos_id}))
    engine = Engine(model, min(model.size.max_seq_len, len(prompt) + max_new_tokens))
    return [token for round_ in engine.generate(prompt, Autoregressive(), stop) for token in round_.tokens]


if __name__ == "__main__":
    command("lens", LensConfig, lens, verbatim=["prompt"])
