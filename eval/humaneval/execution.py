"""Whether completions pass, found by running them in the sandbox: off unless asked for."""

from collections.abc import Iterable, Iterator

from conf.strict import ConfigError
from eval.humaneval.problems import Problem
from eval.humaneval.protocol import program_of
from eval.sandbox.limits import Limits, Outcome
from eval.sandbox.run import available, run_all

WARNING = (
    "programs that a model has written are untrusted: hardly hostile on purpose, they may still be destructive."
    " They run in a sandbox; docs/humaneval.md says what it holds off, and what not. Read that,"
    " and then ask for it with execute=true"
)


def allow(*, allow_execution: bool) -> None:
    """Raises ConfigError unless execution is asked for, SandboxError where it cannot be done safely."""
    if not allow_execution:
        raise ConfigError(f"execute=false: {WARNING}")
    available()


def check_all(
    answers: Iterable[tuple[Problem, str]], limits: Limits, *, allow_execution: bool, workers: int | None = None
) -> Iterator[Outcome]:
    """Run every (problem, completion); the outcomes in the same order. `passed` is the one that counts.

    Args:
        answers: what to check. A completion is the body that continues the prompt, truncated already.
        limits: of each program.
        allow_execution: must be True, and so asked for; see WARNING.
        workers: programs at a time; None: one per core.

    Raises:
        ConfigError: execution was not asked for.
        SandboxError: this machine cannot isolate programs.
    """
    allow(allow_execution=allow_execution)
    return run_all((program_of(problem, completion) for problem, completion in answers), limits, workers)


def check_answer(problem: Problem, completion: str, limits: Limits, *, allow_execution: bool) -> Outcome:
    """What becomes of a single answer, run like those of `check_all`."""
    return next(check_all([(problem, completion)], limits, allow_execution=allow_execution, workers=1))
