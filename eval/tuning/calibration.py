"""What a prediction is made from: how often each exit's drafts would be accepted, and what each pass takes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from conf.progress import progress
from conf.strict import ConfigError
from data.tokenizers.tokenizer import Tokenizer
from eval.engine.decoding import Engine
from eval.engine.one_pass import exit_states, logit_chunks
from eval.engine.policy import MOST_DRAFTS, Autoregressive, SelfSpeculative, Steady
from eval.engine.sampling import Sampler
from eval.engine.threads import Threads, one_token
from eval.measure.plan import Plan, engine_of
from eval.measure.timing import PassTimes, pass_times, timed
from eval.tasks.task import Sample, Task

TIMED_DRAFTS = (1, 2, 3, 4, 6, 8, MOST_DRAFTS)
"""d whose passes are timed; those between lie on the straight lines that join them."""


class Text(NamedTuple):
    """What the full model has written to a prompt, and what the exits would have drafted of it."""

    prompt_tokens: int
    seconds: float
    """Of plain decoding."""
    prefill: float
    """Seconds of it."""
    chances: dict[int, list[float]]
    """Exit layer -> for each token after the first the chance that its draft is accepted; greedy: 0 or 1."""


class Calibration(NamedTuple):
    """All that was found out."""

    texts: list[Text]
    passes: dict[tuple[int, int], PassTimes]
    """(E, d) -> seconds, for two exits and each of TIMED_DRAFTS."""

    def acceptance(self, exit_layer: int) -> list[float]:
        """a_1, a_2, ... of an exit: the chance of each position of a draft if those before it are accepted."""
        found = []
        for position in range(MOST_DRAFTS):
            reached = taken = 0.0
            for text in self.texts:
                chances = text.chances[exit_layer]
                for start in range(len(chances) - position):
                    before = 1.0
                    for chance in chances[start : start + position]:
                        before *= chance
                    reached += before
                    taken += before * chances[start + position]
            found.append(taken / reached if reached else 0.0)
        return found


def calibrated(plan: Plan) -> Calibration:
    """What the samples of a plan say of its checkpoint. Raises ConfigError for a model without an exit."""
    size = plan.checkpoint.stored.size
    if size.n_layers < 2:
        raise ConfigError(f"checkpoint={plan.config.checkpoint}: a model of one layer has no exit to draft with")
    engine = engine_of(plan, plan.checkpoint, spare=MOST_DRAFTS + 1)
    Threads(plan.config.machine.threads, plan.device, one_token(engine.model))
    return calibrate(engine, plan.checkpoint.tokenizer, plan.config.task, plan.samples)


def calibrate(engine: Engine, tokenizer: Tokenizer, task: Task, samples: Sequence[Sample]) -> Calibration:
    """Continue each sample by plain decoding, and pass once over its text with all exits."""
    texts = []
    n_layers = engine.model.size.n_layers
    stop = task.stop(tokenizer)
    timed(engine, samples[0].tokens, Autoregressive(), stop, task.sampling_of(0))  # warms up, uncounted
    with progress("calibration", unit="sample", total=len(samples)) as bar:
        for i, sample in enumerate(samples):
            run = timed(engine, sample.tokens, Autoregressive(), stop, task.sampling_of(i))
            sampler = Sampler(task.sampling_of(i), engine.model.device)
            chances = chances_by_exit(engine, sampler, sample.tokens, run.tokens)
            texts.append(Text(len(sample.tokens), run.seconds, run.round_seconds[0], chances))
            bar.update()
    low, high = 1, max(1, n_layers - 1)
    settings: list[Steady] = [SelfSpeculative(e, d) for e in sorted({low, high}) for d in TIMED_DRAFTS]
    policies: list[Steady] = [Autoregressive(), *settings]
    # Where the texts are in the middle.
    middle = min(len(samples[0].tokens) + task.limit // 2, engine.cache.max_len - MOST_DRAFTS - 1)
    found = pass_times(engine, samples[0].tokens[-1], policies, dict.fromkeys(policies, texts[0].prefill), middle)
    passes = {(p.exit_layer, p.num_speculations): t for p, t in found.items() if isinstance(p, SelfSpeculative)}
    return Calibration(texts, passes)


@torch.inference_mode()
def chances_by_exit(engine: Engine, sampler: Sampler, prompt: list[int], new: list[int]) -> dict[int, list[float]]:
    """Exit layer 1..L-1 -> for each new token after the first the chance that its draft would be accepted.

    One pass over the text meets the very states that drafting would, since an exit's keys and values of a token are the
    same whoever has written it.
    """
    model = engine.model
    if len(new) < 2:
        return {e: [] for e in range(1, model.size.n_layers)}
    given = torch.tensor([[*prompt, *new[:-1]]], device=model.device)
    *below, last = [x[0, len(prompt) :] for x in exit_states(model, given, range(1, model.size.n_layers + 1))]
    full = [chunk for _, chunk in logit_chunks(model, last)]
    return {
        e: [
            chance
            for (_, draft), logits in zip(logit_chunks(model, states, drafts=True), full, strict=True)
            for chance in sampler.agreement(draft, logits)
        ]
        for e, states in enumerate(below, 1)
    }
