"""Do all decoders write the same? `python -m eval.correctness checkpoint=... task=...`.

Exit status: 0 they do, up to near-ties; 1 they do not; 2 bad input.
"""

import json

from omegaconf import DictConfig

from conf.command import command
from conf.strict import convert
from data.files import write_whole
from eval.exactness.correctness_config import CorrectnessConfig


def correctness(raw: DictConfig) -> None:
    """Decode every sample with every decoder, print and write what differs. Raises UnexplainedError."""
    config = convert(raw, CorrectnessConfig)
    from eval.exactness.check import greedy, prepare_check, sampled
    from eval.exactness.divergence import UnexplainedError, unexplained_divergences
    from eval.exactness.report import as_json, decoder_rows, decoder_table, divergence_lines, legend, verdict_line
    from eval.measure.result_file import output_of

    check = prepare_check(config)
    output = output_of(config, check.checkpoint.stored, "correctness")
    print(
        f"{config.task.name}: {len(check.samples):,} samples, seed {config.task.seed} ({check.facts.selection.source})"
    )
    compared = greedy(check)
    tests = sampled(check) if config.sampled else []
    rows, differing = decoder_rows(compared), [d for c in compared for d in c.divergences]
    n_wrong = len(unexplained_divergences(differing)) + sum(not test.same for test in tests)
    content = as_json(check.facts, rows, differing, tests, passed=not n_wrong)
    write_whole(output, (json.dumps(content, indent=1) + "\n").encode())
    # What is unexplained comes first.
    for divergence in sorted(differing, key=lambda d: d.near_tie)[: config.show]:
        print(divergence_lines(divergence))
    if len(differing) > config.show:
        print(f"{len(differing) - config.show:,} more differences are in {output}")
    for test in tests:
        print(verdict_line(test))
    print(decoder_table(rows))
    print(legend(check.facts))
    print(output)
    if n_wrong:
        raise UnexplainedError(f"decoders differ: {n_wrong:,} times, and not by rounding")


if __name__ == "__main__":
    command("correctness", CorrectnessConfig, correctness)
