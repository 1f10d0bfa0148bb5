"""One decoding engine: draft with some layers, verify with the rest, accept. Plain decoding drafts nothing."""

from eval.engine.checkpoint import load
from eval.engine.decoding import EarlyExit, Engine, FullDepth, Policy, SelfSpeculative
from eval.engine.sampling import SamplingOptions
from eval.engine.stopping import StopRule

__all__ = ["EarlyExit", "Engine", "FullDepth", "Policy", "SamplingOptions", "SelfSpeculative", "StopRule", "load"]
