"""Our engine in the place of another one: a draft model from its own file, with its own cache."""

from collections.abc import Callable

from eval.engine.decoding import Engine
from eval.engine.language_model import load
from eval.engine.policy import Autoregressive, DraftModel, Policy
from eval.engine.stopping import StopRule
from eval.serving.job import Decoded, Job, answer


def start(job: Job) -> tuple[str, Callable[[list[int]], Decoded]]:
    draft = load(job.draft).model if job.draft else None
    engine = Engine(load(job.model).model, job.context, draft_model=draft)
    policy: Policy = DraftModel(draft.size.n_layers, job.num_drafts) if draft else Autoregressive()
    stop = StopRule(max_new_tokens=job.max_new_tokens, eos_ids=frozenset({job.eos_id}))

    def decode(prompt: list[int]) -> Decoded:
        rounds = list(engine.generate(prompt, policy, stop))
        tokens = [token for round_ in rounds for token in round_.tokens]
        return tokens, sum(r.n_drafted for r in rounds), sum(r.n_accepted for r in rounds)

    return "worker 1", decode


if __name__ == "__main__":
    answer(start)
