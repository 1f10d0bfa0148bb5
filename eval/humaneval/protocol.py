"""From a completion to a program and from results to pass@k, as Chen et al. 2021 (arXiv 2107.03374) define them."""

import math

from eval.humaneval.problems import Problem

# A model that has written the function goes on with the next thing. The first five are the paper's (section 2.3).
# Without the sixth, a next function that is decorated would be cut behind its decorator, and a right answer not parse.
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@")


def truncate(completion: str) -> str:
    """The completion up to the first of STOPS."""
    return completion[: min((at for stop in STOPS if (at := completion.find(stop)) >= 0), default=len(completion))]


def program_of(problem: Problem, completion: str) -> str:
    """The source that runs to its end exactly if the completion passes the problem's tests."""
    return f"{problem.prompt}{completion}\n{problem.test}\ncheck({problem.entry_point})"


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the chance that k of n samples, drawn without return, hold one of the c right ones.

    The unbiased estimate of pass@k for one problem (Chen et al. 2021, eq. 1), exact until the last division. Raises
    ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {c} right ones among {n} samples: needs 0 <= c <= n and 1 <= k <= n")
    return 1 - math.comb(n - c, k) / math.comb(n, k)
