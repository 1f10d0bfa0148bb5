"""pass@k of samples of HumanEval, by running them: `python -m eval.execute samples=FILE.jsonl execute=true`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from conf.command import command
from conf.output import writable
from conf.progress import progress
from conf.provenance import code_revision
from conf.strict import ConfigError, convert
from data.files import write_whole
from eval.humaneval.config import ExecuteConfig
from eval.humaneval.execution import allow, check_all
from eval.humaneval.problems import Problem, read_problems
from eval.humaneval.samples import Completion, Results, counted, read_samples, scores
from eval.measure.result_name import changed_from_default, named
from eval.sandbox.run import available


def execute(raw: DictConfig) -> None:
    """Run every sample, print pass@k, write what became of each."""
    config = convert(raw, ExecuteConfig)
    problems = read_problems(config.problems)
    source = Path(config.samples).expanduser()
    samples = read_samples(source, problems, cut=config.truncate)
    _all_attempted(source, samples, problems, config.partial)
    output = writable(config.output or source.with_name(_name(source, config)))
    allow(allow_execution=config.execute)
    results = Results(output, config.limits(), fresh=config.fresh)
    _run(samples, results, config)
    lines = results.lines(samples)
    summary = {
        **scores(((line["task_id"], line["passed"]) for line in lines), config.k),
        "problems": len({sample.problem.task_id for sample in samples}),
        "samples": len(samples),
        "results": dict(counted(lines).most_common()),
        "limits": asdict(config.limits()),
        "truncate": config.truncate,
        "isolation": available(),
        "commit": code_revision(),
    }
    write_whole(output, "".join(json.dumps(line) + "\n" for line in lines).encode())
    write_whole(output.with_suffix(".json"), (json.dumps(summary, indent=1) + "\n").encode())
    results.remove()
    _report(summary, output)


def _name(source: Path, config: ExecuteConfig) -> str:
    """Name of the results' file, unless output gives one."""
    results = source.name.partition(".jsonl")[0] + "_results"
    return named(results, changed_from_default(config, ("samples", "execute", "partial"))) + ".jsonl"


def _all_attempted(source: Path, samples: list[Completion], problems: dict[str, Problem], partial: bool) -> None:
    left_out = sorted(problems.keys() - {sample.problem.task_id for sample in samples})
    if left_out and not partial:
        raise ConfigError(
            f"samples={source}: none for {len(left_out)} of {len(problems)} problems ({left_out[0]}, ...);"
            " partial=true scores those that have some"
        )


def _run(samples: list[Completion], results: Results, config: ExecuteConfig) -> None:
    waiting = {key: sample for sample in samples if (key := results.key(sample)) not in results.known}
    answers = ((sample.problem, sample.completion) for sample in waiting.values())
    outcomes = check_all(answers, results.limits, allow_execution=config.execute, workers=config.workers)
    n_before = len(results.known)
    with progress("execute", unit="program", total=n_before + len(waiting), initial=n_before) as bar:
        for key, outcome in zip(waiting, outcomes, strict=True):
            results.add(key, outcome)
            bar.update()


def _report(summary: dict[str, Any], output: Path) -> None:
    print(f"{summary['samples']:,} samples of {summary['problems']} problems")
    for status, n in summary["results"].items():
        print(f"{status:<10}{n:>8,}")
    for name, value in summary.items():
        if name.startswith("pass@"):
            print(f"{name:<10}{value:>8.4f}")
    print(f"{output}, {output.with_suffix('.json')}")


if __name__ == "__main__":
    command(
        "execute",
        ExecuteConfig,
        execute,
        interrupted="interrupted; the same command goes on after the programs that have been run",
    )
