"""One decoding engine: draft with some layers, verify with the rest, accept. Autoregressive decoding drafts nothing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.engine.decoding import Engine
    from eval.engine.language_model import LanguageModel, load
    from eval.engine.one_pass import exit_logits
    from eval.engine.policy import Autoregressive, DraftModel, EarlyExit, Policy, PromptLookup, SelfSpeculative
    from eval.engine.rows import Request
    from eval.engine.sampling_options import SamplingOptions
    from eval.engine.stopping import StopRule
    from eval.engine.text_stream import TextStream

__all__ = [
    "Autoregressive",
    "DraftModel",
    "EarlyExit",
    "Engine",
    "LanguageModel",
    "Policy",
    "PromptLookup",
    "Request",
    "SamplingOptions",
    "SelfSpeculative",
    "StopRule",
    "TextStream",
    "exit_logits",
    "load",
]

_MODULES = {
    "DraftModel": "policy",
    "EarlyExit": "policy",
    "Engine": "decoding",
    "Autoregressive": "policy",
    "Policy": "policy",
    "PromptLookup": "policy",
    "SamplingOptions": "sampling_options",
    "SelfSpeculative": "policy",
    "StopRule": "stopping",
    "TextStream": "text_stream",
    "exit_logits": "one_pass",
    "LanguageModel": "language_model",
    "Request": "rows",
    "load": "language_model",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is, since torch takes seconds and configurations need none of it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
