"""Tasks of lm-evaluation-harness in one mode: `python -m eval.harness checkpoint=... tasks=[...]`."""

from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig

from conf.command import command
from conf.strict import convert
from eval.lm.config import HarnessConfig


def harness(raw: DictConfig) -> dict[str, Any]:
    """Run the tasks, print lm-eval's tables, write its results."""
    config = convert(raw, HarnessConfig)
    from lm_eval.utils import make_table

    from eval.lm.model import LayerSkipLM
    from eval.lm.results import save_results, save_samples
    from eval.lm.tasks import Tasks
    from eval.machine import provenance
    from eval.measure.result_file import output_of

    tasks = Tasks(config)
    lm = LayerSkipLM.of(
        config,
        mode=config.mode,
        policy=config.policy,
        exit_layer=config.exit_layer,
        num_speculations=config.num_speculations,
    )
    output = output_of(config, lm.stored, "harness")
    tasks.load()
    with lm.answers.kept(output, lm.who(), fresh=config.fresh):
        results = tasks.run(lm, log_samples=config.log_samples)
        written = save_samples(results.pop("samples", {}), output)
        asked = {"model": "layerskip", "model_args": {"checkpoint": config.checkpoint}}
        results["config"] |= asked | asdict(provenance(lm.device, lm.model.dtype, int8=lm.int8))
        save_results(results, output)
    print(make_table(results))
    if "groups" in results:
        print(make_table(results, "groups"))
    print(output, *written, sep="\n")
    return results


if __name__ == "__main__":
    command(
        "harness",
        HarnessConfig,
        harness,
        verbatim=["system_instruction", "gen_kwargs"],
        interrupted="interrupted; the same command goes on from here",
    )
