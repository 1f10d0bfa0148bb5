"""One decoding engine: draft with some layers, verify with the rest, accept. Plain decoding drafts nothing."""

from eval.engine.checkpoint import load
from eval.engine.decoding import EarlyExit, Engine, FullDepth, Policy, SelfSpeculative
from eval.engine.one_pass import exit_logits
from eval.engine.sampling import SamplingOptions
from eval.engine.stopping import StopRule
from eval.engine.text_stream import TextStream

__all__ = [
    "EarlyExit",
    "Engine",
    "FullDepth",
    "Policy",
    "SamplingOptions",
    "SelfSpeculative",
    "StopRule",
    "TextStream",
    "exit_logits",
    "load",
]
