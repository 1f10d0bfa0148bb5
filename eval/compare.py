"""Texts of all three modes side by side: `python -m eval.compare checkpoint=... prompt=...`."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from conf.command import command
from conf.progress import each
from conf.strict import convert
from eval.config import Mode
from eval.engine.stopping import StopRule
from eval.exactness.compare_config import CompareConfig
from eval.pages.page import write_page
from eval.prompts.prompt_text import prompt_texts
from eval.tasks.held_out import HeldOut

if TYPE_CHECKING:
    from eval.engine.checkpoint import Checkpoint
    from eval.engine.policy import Policy


def compare(raw: DictConfig) -> None:
    """Decode every prompt in every mode, write the page, print a table."""
    config = convert(raw, CompareConfig)
    from eval.engine.chat import open_for_prompts
    from eval.engine.decoding import Engine
    from eval.engine.threads import Threads, one_token
    from eval.exactness.compared import mode_rows, mode_table, unexplained_sides
    from eval.exactness.side_by_side import side_by_side
    from eval.machine import device_and_dtype, provenance
    from eval.measure.result_file import output_of
    from eval.pages.compare_page import compare_page
    from eval.policies import check_decodable

    device, dtype = device_and_dtype(config.machine)
    checkpoint = open_for_prompts(config.checkpoint, chat=config.chat)
    tokenizer, context = checkpoint.tokenizer, checkpoint.stored.size.max_seq_len
    chosen = _policies(config, checkpoint)
    texts = prompt_texts(config.prompt, config.prompt_file, config.field)
    if len(texts) > config.n_samples:
        print(f"the first {config.n_samples} of {len(texts):,} prompts (n_samples)", file=sys.stderr)
    texts = texts[: config.n_samples]
    output = output_of(config, checkpoint.stored, "compare", ".html", text="\n".join(texts))
    prompts = [tokenizer.encode_prompt(text) for text in texts]
    model = checkpoint.model(dtype, device, **config.machine.model_options)
    threads = Threads(config.machine.threads, device, one_token(model))
    for prompt in prompts:
        for policy in chosen:
            check_decodable(model, policy, prompt)
    stop = StopRule(
        max_new_tokens=config.max_new_tokens,
        eos_ids=frozenset() if config.ignore_eos else frozenset({tokenizer.eos_id}),
    )
    engine = Engine(model, min(context, max(map(len, prompts)) + config.max_new_tokens))
    side_by_side(engine, prompts[0], chosen, StopRule(max_new_tokens=8))  # what runs first is slow
    results = []
    for prompt in each(prompts, "compare", unit="prompt"):
        threads.refresh()
        results.append(side_by_side(engine, prompt, chosen, stop))
    facts = {
        "checkpoint": config.checkpoint,
        "draft_vocab": config.machine.draft_vocab,
        **asdict(provenance(device, dtype, int8=config.machine.int8)),
    }
    rows = mode_rows(results, model.size.n_layers)
    write_page(output, compare_page(tokenizer, prompts, results, rows, facts))
    print(mode_table(rows))
    for line in unexplained_sides(results):
        print(line, file=sys.stderr)
    print(output)


def _policies(config: CompareConfig, checkpoint: "Checkpoint") -> "list[Policy]":
    """Self-speculation, then early exit from the last exit to the first."""
    from eval.engine.policy import SelfSpeculative
    from eval.policies import measured_drafting, policies, unmeasured_drafting

    best = measured_drafting(checkpoint) or unmeasured_drafting(checkpoint)
    exit_layer = config.exit_layers[0] if config.exit_layers else best.exit_layer
    d = best.num_speculations if config.num_speculations is None else config.num_speculations
    n_layers = checkpoint.stored.size.n_layers
    exits = policies(n_layers, config.exit_layers or HeldOut().exit_layers(n_layers), [], modes=[Mode.early_exit])
    return [SelfSpeculative(exit_layer, d), *reversed(exits[1:])]


if __name__ == "__main__":
    command("compare", CompareConfig, compare, verbatim=["prompt"])
