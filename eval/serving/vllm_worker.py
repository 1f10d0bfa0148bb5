"""vLLM on one job; run by the Python of .venv-serve, which has vLLM and nothing of ours but eval.serving.job."""

from collections.abc import Callable
from typing import Any

from eval.serving.job import Decoded, Job, answer

COUNTERS = ("vllm:spec_decode_num_draft_tokens", "vllm:spec_decode_num_accepted_tokens")


def start(job: Job) -> tuple[str, Callable[[list[int]], Decoded]]:
    """The engine with room for one text."""
    import vllm

    options: dict[str, Any] = {}
    if job.draft is not None:
        drafts = {"method": "draft_model", "model": job.draft, "num_speculative_tokens": job.num_drafts}
        options["speculative_config"] = drafts
    engine = vllm.LLM(
        model=job.model,
        dtype=job.dtype,
        max_model_len=job.context,
        max_num_seqs=1,
        enforce_eager=not job.compiled,
        enable_prefix_caching=False,  # each prompt is read anew, as elsewhere
        disable_log_stats=False,  # which has the counters
        **options,
    )
    greedy = vllm.SamplingParams(
        temperature=0.0, max_tokens=job.max_new_tokens, ignore_eos=True, stop_token_ids=[job.eos_id], detokenize=False
    )
    before = [0, 0]

    def decode(prompt: list[int]) -> Decoded:
        [found] = engine.generate([{"prompt_token_ids": prompt}], greedy, use_tqdm=False)
        now = {metric.name: getattr(metric, "value", 0) for metric in engine.get_metrics()}
        counts = [int(now.get(name, 0)) for name in COUNTERS]
        drafted, accepted = (a - b for a, b in zip(counts, before, strict=True))
        before[:] = counts
        return list(found.outputs[0].token_ids), drafted, accepted

    return f"vLLM {vllm.__version__}", decode


if __name__ == "__main__":
    answer(start)
