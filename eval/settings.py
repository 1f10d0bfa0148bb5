"""Which exit layer and how many drafts, when a user leaves it open."""

from conf.strict import ConfigError
from eval.config import GenerateConfig, Mode
from eval.engine.decoding import EarlyExit, FullDepth, Policy, SelfSpeculative, check
from eval.load import Checkpoint
from models.inference import InferenceLlama
from models.recommended import recommended


def check_decodable(model: InferenceLlama, policy: Policy, prompt: list[int]) -> None:
    """Raise ConfigError, in one line, for a prompt or policy that the model cannot decode."""
    try:
        check(model, policy, prompt, model.size.max_seq_len)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def policy_of(config: GenerateConfig, checkpoint: Checkpoint) -> Policy:
    """The policy that the config names, what it leaves open filled in. Raises ConfigError for a key without effect."""
    exit_layer, d = config.exit_layer, config.num_speculations
    if config.mode is Mode.autoregressive and exit_layer is not None:
        raise ConfigError(f"exit_layer={exit_layer}: has no effect with mode=autoregressive, which uses all layers")
    if config.mode is not Mode.self_speculative and d is not None:
        raise ConfigError(f"num_speculations={d}: has no effect with mode={config.mode}, which drafts nothing")
    if config.mode is Mode.autoregressive:
        return FullDepth()
    best = fastest(checkpoint)
    if config.mode is Mode.early_exit:
        return EarlyExit(best.exit_layer if exit_layer is None else exit_layer)
    return SelfSpeculative(
        exit_layer=best.exit_layer if exit_layer is None else exit_layer,
        num_speculations=best.num_speculations if d is None else d,
    )


def fastest(checkpoint: Checkpoint) -> SelfSpeculative:
    """The fastest row of the checkpoint's own benchmark, else a third of the layers and 3 drafts."""
    row = recommended(checkpoint.stored.folder)
    if row is None:
        return SelfSpeculative(max(1, checkpoint.stored.size.n_layers // 3), 3)
    return SelfSpeculative(row["exit_layer"], row["num_speculations"])
