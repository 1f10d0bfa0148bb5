"""What a task asks of a generation, in the words of our engine."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lm_eval.models.utils import normalize_gen_kwargs

from conf.strict import ConfigError
from eval.engine.sampling_options import SamplingOptions

# What changes nothing at these values; other decoders (beams) are not ours.
WITHOUT_EFFECT = {"num_beams": 1, "num_return_sequences": 1}


class GenerationSettings(NamedTuple):
    """How to go on, and when to stop."""

    until: tuple[str, ...]
    max_new_tokens: int
    sampling: SamplingOptions


def generation_settings(options: Mapping[str, Any], max_new_tokens: int, seed: int) -> GenerationSettings:
    """From a task's generation_kwargs.

    Args:
        options: until, max_gen_toks (or max_new_tokens, ...), do_sample, temperature, top_k, top_p, min_p,
            repetition_penalty.
        max_new_tokens: where they do not say.
        seed: of the draws.

    Raises ConfigError for others, and for impossible values.
    """
    given = dict(normalize_gen_kwargs(dict(options), max_new_tokens))
    until, n, samples = given.pop("until"), given.pop("max_gen_toks"), given.pop("do_sample")
    temperature, top_k, top_p = given.pop("temperature", None), given.pop("top_k", 0), given.pop("top_p", 1.0)
    min_p, penalty = given.pop("min_p", None) or 0.0, given.pop("repetition_penalty", None) or 1.0
    for key, value in given.items():
        if WITHOUT_EFFECT.get(key, ...) != value:
            raise ConfigError(f"gen_kwargs: {key}={value} is not supported; until, max_gen_toks and sampling are")
    if samples and temperature is None:
        temperature = 1.0
    try:
        sampling = SamplingOptions(
            temperature=float(temperature or 0.0) if samples else 0.0,
            top_k=int(top_k),
            top_p=float(top_p),
            min_p=float(min_p),
            repetition_penalty=float(penalty),
            seed=seed,
        )
    except ValueError as error:
        raise ConfigError(f"gen_kwargs: {error}") from None
    return GenerationSettings(tuple(until), int(n), sampling)
