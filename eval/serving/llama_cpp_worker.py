"""llama.cpp on one job, through its server; run by the Python of .venv-serve, which has xllamacpp."""

import importlib.metadata
import json
import urllib.request
from collections.abc import Callable
from typing import Any

from eval.serving.job import Decoded, Job, answer


def start(job: Job) -> tuple[str, Callable[[list[int]], Decoded]]:
    """The server on a port of this machine, with room for one text."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = job.model
    params.n_ctx, params.n_parallel, params.port, params.verbosity = job.context, 1, 0, 0
    params.cache_ram_mib = 0  # each prompt is read anew, as elsewhere
    numbers = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[job.dtype]
    kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{numbers}")
    draft = params.speculative.draft
    for part in (params, draft):
        part.cache_type_k = part.cache_type_v = kind
        part.cpuparams.n_threads = part.cpuparams_batch.n_threads = job.threads
    if job.draft is not None:
        params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        draft.mparams.path = job.draft
        draft.n_max, draft.n_min, draft.p_min = job.num_drafts, 0, 0.0  # as many in every round, however unsure
    server = xllamacpp.Server(params)

    def decode(prompt: list[int]) -> Decoded:
        found = _post(
            f"{server.listening_address}/completion",
            {
                "prompt": prompt,
                "n_predict": job.max_new_tokens,
                "temperature": 0.0,
                "return_tokens": True,
                "cache_prompt": False,
            },
        )
        timings = found["timings"]
        return found["tokens"], timings.get("draft_n", 0), timings.get("draft_n_accepted", 0)

    return f"llama.cpp (xllamacpp {importlib.metadata.version('xllamacpp')})", decode


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        content: dict[str, Any] = json.loads(reply.read())
    return content


if __name__ == "__main__":
    answer(start)
