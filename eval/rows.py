"""From measurements to one row per setting: medians of what was measured in pairs."""

from statistics import median, quantiles
from typing import Any

from eval.agreement import distinct_4grams, first_difference, is_near_tie
from eval.engine.decoding import EarlyExit, FullDepth, Policy, SelfSpeculative
from eval.ideal import early_exit_ideal, ideal_speedup, measured_cost_ideal
from eval.measure import Measured
from models.inference import InferenceLlama

Row = dict[str, Any]
"""What benchmark.json lists; its keys are described in the README."""


def rows_of(model: InferenceLlama, measured: Measured, prompts: list[list[int]], stated: Row) -> list[Row]:
    """A row per policy; `stated` (machine, commit, checkpoint) is repeated in each."""
    plain = measured.runs[FullDepth()]
    rows = []
    for policy in measured.runs:
        row = _settings(policy, model.size.n_layers) | _speed(measured, policy) | _rounds(measured, policy)
        row |= _ideals(model, measured, policy)
        row |= _agreement(model, measured, prompts, [run.tokens for run in measured.runs[policy]])
        if isinstance(policy, FullDepth):
            row |= _transformers(measured)
        counts = {
            "n_prompts": len(prompts),
            "repeats": len(plain) // len(prompts),
            "prompt_tokens": len(prompts[0]),
            "new_tokens": len(plain[0].tokens),
        }
        rows.append(row | counts | stated)
    return rows


def _settings(policy: Policy, n_layers: int) -> Row:
    match policy:
        case FullDepth():
            mode, exit_layer, d = "autoregressive", n_layers, 0
        case EarlyExit(exit_layer):
            mode, d = "early_exit", 0
        case SelfSpeculative(exit_layer, d):
            mode = "self_speculative"
    return {"mode": mode, "exit_layer": exit_layer, "num_speculations": d}


def _speed(measured: Measured, policy: Policy) -> Row:
    runs, plain = measured.runs[policy], measured.runs[FullDepth()]
    ratios = [p.seconds / len(p.tokens) / (r.seconds / len(r.tokens)) for p, r in zip(plain, runs, strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    per_token = median(r.seconds / len(r.tokens) for r in runs)
    return {
        "tokens_per_second": 1 / per_token,
        "ms_per_token": 1e3 * per_token,
        "cpu_ms_per_token": 1e3 * median(r.cpu_seconds / len(r.tokens) for r in runs),
        "speedup": median(ratios),
        "speedup_q25": low,
        "speedup_q75": high,
    }


def _rounds(measured: Measured, policy: Policy) -> Row:
    """Acceptance over all drafted tokens, tokens per round over all rounds after the prefill."""
    if not isinstance(policy, SelfSpeculative):
        return {"acceptance_rate": None, "tokens_per_round": 1.0}
    rounds = [r for run in measured.runs[policy] for r in run.rounds[1:]]
    n_drafted, n_accepted = sum(r.n_drafted for r in rounds), sum(r.n_accepted for r in rounds)
    return {
        "acceptance_rate": n_accepted / n_drafted if n_drafted else None,
        "tokens_per_round": n_accepted / max(1, len(rounds)) + 1,
    }


def _ideals(model: InferenceLlama, measured: Measured, policy: Policy) -> Row:
    n_layers, head = model.size.n_layers, head_cost(model)
    plain, runs, passes = measured.runs[FullDepth()], measured.runs[policy], measured.passes[policy]
    match policy:
        case FullDepth():
            return {"ideal_speedup": 1.0, "measured_cost_ideal": 1.0, "share_of_measured_cost_ideal": 1.0, "head": head}
        case EarlyExit(exit_layer):
            ideal = (n_layers + head) / (exit_layer + head)
            possible = [early_exit_ideal(times, len(p.tokens)) for times, p in zip(passes, plain, strict=True)]
        case SelfSpeculative(exit_layer, _):
            rounds = [r for run in runs for r in run.rounds[1:]]
            d = sum(r.n_drafted for r in rounds) / max(1, len(rounds))
            n = sum(r.n_accepted for r in rounds) / max(1, len(rounds))
            ideal = ideal_speedup(n_layers=n_layers, exit_layer=exit_layer, d=d, n=n, head=head)
            possible = [
                measured_cost_ideal(times, len(p.tokens), [r.n_drafted for r in run.rounds[1:]])
                for times, p, run in zip(passes, plain, runs, strict=True)
            ]
    shares = [p.seconds / run.seconds / limit for p, run, limit in zip(plain, runs, possible, strict=True)]
    return {
        "ideal_speedup": ideal,
        "measured_cost_ideal": median(possible),
        "share_of_measured_cost_ideal": median(shares),
        "head": head,
    }


def head_cost(model: InferenceLlama) -> float:
    """h, the cost of the LM head in units of a block, by multiplications per token."""
    return model.head.numel() / sum(weight.numel() for weight in model.blocks[0])


def _agreement(model: InferenceLlama, measured: Measured, prompts: list[list[int]], texts: list[list[int]]) -> Row:
    """How the texts compare with plain decoding's."""
    same = near_ties = 0
    for turn, (text, run) in enumerate(zip(texts, measured.runs[FullDepth()], strict=True)):
        at = first_difference(text, run.tokens)
        if at is None:
            same += 1
        elif at < min(len(text), len(run.tokens)):
            context = prompts[measured.prompt[turn]] + run.tokens[:at]
            near_ties += is_near_tie(model, context, text[at], run.tokens[at])
    return {
        "identical_output": same + near_ties == len(texts),
        "identical_share": same / len(texts),
        "near_ties": near_ties,
        "distinct_4grams": distinct_4grams(texts),
    }


def _transformers(measured: Measured) -> Row:
    if not measured.transformers:
        return {}
    plain = measured.runs[FullDepth()]
    pairs = list(zip(plain, measured.transformers, strict=True))
    return {
        "transformers": measured.transformers_version,
        "transformers_tokens_per_second": median(len(text) / seconds for text, seconds in measured.transformers),
        "speedup_over_transformers": median(
            seconds / len(text) / (p.seconds / len(p.tokens)) for p, (text, seconds) in pairs
        ),
        "same_as_transformers": sum(p.tokens == text for p, (text, _) in pairs) / len(pairs),
    }
