"""Continue a text with a checkpoint: `python -m eval.generate checkpoint=... prompt=...`."""

import sys
import time
from dataclasses import asdict

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.strict import convert
from eval.config import GenerateConfig
from eval.engine.stopping import StopRule
from eval.engine.text_stream import TextStream
from eval.pages.page import write_page
from eval.prompts.prompt_text import prompt_text


def generate(raw: DictConfig) -> None:
    """Decode one prompt and print it as it comes; what it took goes to standard error."""
    config = convert(raw, GenerateConfig)
    import torch

    from eval.engine.chat import open_for_prompts
    from eval.engine.decoding import Engine
    from eval.engine.ranks import from_first, ranks
    from eval.engine.threads import Threads, one_token
    from eval.machine import device_and_dtype, provenance
    from eval.pages.drafts_page import drafts_page
    from eval.painter import Painter, speed_line
    from eval.policies import check_decodable, check_splits, choose_policy, memory_of
    from eval.setting import Setting

    device, dtype = device_and_dtype(config.machine)
    with ranks(device) as part:
        checkpoint = open_for_prompts(config.checkpoint, chat=config.chat)
        policy, reason, draft_vocab = choose_policy(config, checkpoint)
        tokenizer, context = checkpoint.tokenizer, checkpoint.stored.size.max_seq_len
        output = writable(config.output) if config.output and part.rank == 0 else None
        check_splits(checkpoint.stored.size, part, policy)
        text = from_first(part, lambda: prompt_text(config.prompt, config.prompt_file))
        prompt = tokenizer.encode_prompt(text)
        model = checkpoint.model(
            dtype, device, part=part, **{**config.machine.model_options, "draft_vocab": draft_vocab}
        )
        # Ranks that each time passes to choose a number would wait for each other.
        fixed = config.machine.threads or (torch.get_num_threads() if part.ranks > 1 else None)
        threads = Threads(fixed, device, one_token(model))
        check_decodable(model, policy, prompt)
        max_len = min(context, len(prompt) + config.max_new_tokens)
        stop = StopRule(
            max_new_tokens=config.max_new_tokens,
            eos_ids=frozenset() if config.ignore_eos else frozenset({tokenizer.eos_id}),
            strings=tuple(config.stop),
            decode=tokenizer.decode,
        )
        painter, stream = Painter(config.color), TextStream(tokenizer.decode, prompt)
        if reason:
            print(reason, file=sys.stderr)
        print(memory_of(policy, checkpoint.stored.size, max_len, dtype), file=sys.stderr)
        painter.prompt(text + "\n" if config.chat else text)
        engine, rounds, start = Engine(model, max_len), [], time.perf_counter()
        for round_ in engine.generate(prompt, policy, stop, config.sampling):
            rounds.append(round_)
            painter.drafted(stream.push(round_.tokens[: round_.n_accepted]))
            painter.full(stream.push(round_.tokens[round_.n_accepted :]))
            threads.refresh()
        painter.end(stream.rest())
        seconds = time.perf_counter() - start
        print(speed_line(rounds, policy, model.size.n_layers, seconds, painter), file=sys.stderr)
        if len(prompt) + sum(len(r.tokens) for r in rounds) > context:
            print(f"ended with the context of {context} tokens", file=sys.stderr)
        if output:
            machine = provenance(device, dtype, int8=config.machine.int8)
            mode = Setting.of(policy, model.size.n_layers).mode
            facts = {"checkpoint": config.checkpoint, "mode": mode, "draft_vocab": draft_vocab, **asdict(machine)}
            write_page(output, drafts_page(tokenizer, prompt, rounds, policy, model.size.n_layers, seconds, facts))
            print(output, file=sys.stderr)


if __name__ == "__main__":
    command("generate", GenerateConfig, generate, verbatim=["prompt"])
