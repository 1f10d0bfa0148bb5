"""The decoders that are compared, each by its own public interface, all from one Hugging Face folder."""

import importlib.metadata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from conf.strict import ConfigError
from eval.engine.decoding import Engine
from eval.engine.policy import Autoregressive, Policy, PromptLookup, SelfSpeculative
from eval.engine.rows import Request
from eval.engine.stopping import StopRule
from eval.measure.transformers_run import padded, up_to_end
from eval.peers.config import Peer

PLAIN, SPECULATION, LOOKUP = "plain", "self_speculation", "prompt_lookup"
ECONOMIZE, TRANSFORMERS = "0.3.2", "5.23"
"""Versions that work together: economize 0.3.2 reads transformers' internals as they are in 5.23."""


class Way(NamedTuple):
    """A decoder with its numbers; result files have the fields under their names."""

    system: str
    """A Peer."""
    mode: str
    """plain, self_speculation or prompt_lookup."""
    exit_layer: int = 0
    """E; 0 where no layers draft."""
    num_speculations: int = 0
    """d; 0 where nothing is drafted."""

    @property
    def label(self) -> str:
        """`economize self_speculation E=2 d=3`."""
        numbers = [f"E={self.exit_layer}"] * bool(self.exit_layer) + [f"d={self.num_speculations}"]
        return " ".join([self.system, self.mode, *(numbers if self.num_speculations else [])])


Decode = Callable[[Way, Sequence[list[int]]], list[list[int]]]
"""The new tokens of some prompts."""


def check_installed(systems: Sequence[Peer]) -> None:
    """Raise ConfigError, naming `make peers`, where a peer's package is missing or of another version."""
    remedy = "`make peers` sets up .venv-peers; then start .venv-peers/bin/python -m eval.compare_peers"
    for peer, needed in ((Peer.economize, ECONOMIZE), (Peer.transformers, TRANSFORMERS)):
        if Peer.economize not in systems and peer not in systems:
            continue
        try:
            version = importlib.metadata.version(peer.value)
        except importlib.metadata.PackageNotFoundError:
            raise ConfigError(f"systems: the package {peer} is not installed here; {remedy}") from None
        if Peer.economize in systems and not f"{version}.".startswith(f"{needed}."):
            raise ConfigError(f"systems: {peer} {version} is installed, economize is compared with {needed}; {remedy}")


def modes_of(peer: Peer, batch_size: int) -> list[str]:
    """What a system can do with so many prompts at a time."""
    if peer is Peer.economize:
        return [PLAIN, SPECULATION]
    return [PLAIN] if peer is Peer.transformers and batch_size > 1 else [PLAIN, SPECULATION, LOOKUP]


def ours(engine: Engine, stop: StopRule) -> Decode:
    """Our engine."""

    def policy_of(way: Way) -> Policy:
        match way.mode:
            case "plain":
                return Autoregressive()
            case "prompt_lookup":
                return PromptLookup(way.num_speculations)
            case _:
                return SelfSpeculative(way.exit_layer, way.num_speculations)

    def decode(way: Way, prompts: Sequence[list[int]]) -> list[list[int]]:
        texts: list[list[int]] = [[] for _ in prompts]
        for rounds in engine.generate_all([Request(prompt, stop) for prompt in prompts], policy_of(way)):
            for number, round_ in rounds:
                texts[number] += round_.tokens
        return texts

    return decode


def hf_model(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """The folder's model in transformers, as its documentation loads one."""
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model = model.to(device).eval()
    # Greedy, and nothing of what the folder recommends: each prompt is decoded with what is passed along.
    model.generation_config.update(do_sample=False, temperature=None, top_p=None, top_k=None)
    return model


def transformers_decoder(model: Any, stop: StopRule) -> Decode:
    """`generate`, with a constant number of drafts and without its confidence threshold where layers draft."""

    def decode(way: Way, prompts: Sequence[list[int]]) -> list[list[int]]:
        ids, mask = padded(prompts, model.device)
        extra: dict[str, Any] = {"eos_token_id": sorted(stop.eos_ids) or None}
        if way.mode == SPECULATION:
            extra["assistant_early_exit"] = way.exit_layer
            # The model is its own assistant, which takes these from its generation_config.
            model.generation_config.num_assistant_tokens = way.num_speculations
            model.generation_config.num_assistant_tokens_schedule = "constant"
            model.generation_config.assistant_confidence_threshold = 0.0
        elif way.mode == LOOKUP:
            extra["prompt_lookup_num_tokens"] = way.num_speculations
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = model.generate(
                ids, attention_mask=mask, max_new_tokens=stop.max_new_tokens, do_sample=False, pad_token_id=0, **extra
            )
        return [up_to_end(row[ids.shape[1] :].tolist(), stop) for row in out]

    return decode


def economize_decoder(base: Any, stop: StopRule) -> Decode:
    """`decode` and `decode_batch` of economize; a cycle is one exact token and d drafts."""
    import economize
    from economize.techniques.early_exit import EarlyExitConfig

    models: dict[int, Any] = {0: economize.apply(base)}

    def decode(way: Way, prompts: Sequence[list[int]]) -> list[list[int]]:
        if way.exit_layer not in models:
            models[way.exit_layer] = economize.apply(base, EarlyExitConfig(exit_layer=way.exit_layer, head="shared"))
        model, cycle = models[way.exit_layer], economize.DecodeConfig(cycle_length=way.num_speculations + 1)
        ids = [torch.tensor(prompt, device=base.device) for prompt in prompts]
        ends = {"decoding": cycle, "stop": sorted(stop.eos_ids) or None}
        if len(ids) == 1:
            return [model.decode(ids[0], stop.max_new_tokens, **ends).tokens.tolist()]
        return [result.tokens.tolist() for result in model.decode_batch(ids, stop.max_new_tokens, **ends)]

    return decode
