"""Which ways to decode: the grid that a measurement compares, and one that a user leaves open, filled in."""

from collections.abc import Sequence

from conf.strict import ConfigError
from eval.config import ExitStates, GenerateConfig, Mode
from eval.engine.checkpoint import Checkpoint
from eval.engine.decoding import Autoregressive, EarlyExit, Policy, SelfSpeculative, check_decodable_by
from models.inference import InferenceLlama
from models.storage.recommended import default_exit, recommended


def policies(
    n_layers: int,
    exit_layers: Sequence[int],
    num_speculations: Sequence[int],
    *,
    modes: Sequence[Mode] = tuple(Mode),
    exit_states: Sequence[ExitStates] = (ExitStates.reuse,),
) -> list[Policy]:
    """Autoregressive decoding, early exit at each exit, and self-speculation with each exit and each number of drafts.

    Args:
        n_layers: L.
        exit_layers: E, each in 1..L-1.
        num_speculations: d.
        modes: early exit and self-speculation are left out unless named here; autoregressive decoding never is.
        exit_states: kinds of verification.

    Raises ConfigError.
    """
    exits, drafts = sorted(set(exit_layers)), sorted(set(num_speculations))
    for e in exits:
        if not 1 <= e < n_layers:
            raise ConfigError(f"exit_layers={e}: must lie in 1..{n_layers - 1} to leave layers to verify")
    early = [EarlyExit(e) for e in exits] if Mode.early_exit in modes else []
    speculative = [
        SelfSpeculative(e, d, kind is ExitStates.reuse)
        for e in exits
        for d in drafts
        for kind in dict.fromkeys(exit_states)
    ]
    return [Autoregressive(), *early, *(speculative if Mode.self_speculative in modes else [])]


def check_decodable(model: InferenceLlama, policy: Policy, prompt: list[int]) -> None:
    """Raise ConfigError, in one line, for a prompt or policy that the model cannot decode."""
    try:
        check_decodable_by(model, policy, prompt, model.size.max_seq_len)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def policy_of(config: GenerateConfig, checkpoint: Checkpoint) -> Policy:
    """The policy that the config names, what it leaves open filled in. Raises ConfigError for a key without effect."""
    exit_layer, d, mode = config.exit_layer, config.num_speculations, mode_of(config, checkpoint)
    if mode is Mode.autoregressive and exit_layer is not None:
        raise ConfigError(f"exit_layer={exit_layer}: has no effect with mode=autoregressive, which uses all layers")
    if mode is not Mode.self_speculative and d is not None:
        raise ConfigError(f"num_speculations={d}: has no effect with mode={mode}, which drafts nothing")
    if mode is Mode.autoregressive:
        return Autoregressive()
    best = fastest(checkpoint)
    if mode is Mode.early_exit:
        return EarlyExit(best.exit_layer if exit_layer is None else exit_layer)
    return SelfSpeculative(
        exit_layer=best.exit_layer if exit_layer is None else exit_layer,
        num_speculations=best.num_speculations if d is None else d,
    )


def mode_of(config: GenerateConfig, checkpoint: Checkpoint) -> Mode:
    """The mode that is asked for; else self-speculation, unless it was measured and no setting was faster."""
    if config.mode is not None:
        return config.mode
    found = recommended(checkpoint.stored.folder)
    open_ = config.exit_layer is None and config.num_speculations is None
    return Mode.autoregressive if open_ and found and not found.pays else Mode.self_speculative


def told(config: GenerateConfig, checkpoint: Checkpoint) -> str | None:
    """From where the setting was taken, when the config leaves it open and something has been measured."""
    found = recommended(checkpoint.stored.folder)
    if found is None or config.mode is not None or None not in (config.exit_layer, config.num_speculations):
        return None
    row = found.row
    if mode_of(config, checkpoint) is Mode.autoregressive:
        return (
            f"plain decoding: no setting in {found.file} is faster (the best, exit_layer={row['exit_layer']}"
            f" num_speculations={row['num_speculations']}, {row['speedup']:.2f} times as fast); mode=self_speculative"
            " drafts all the same"
        )
    taken = {key: row[key] for key in ("exit_layer", "num_speculations") if getattr(config, key) is None}
    return f"{' '.join(f'{k}={v}' for k, v in taken.items())}: the fastest in {found.file}"


def fastest(checkpoint: Checkpoint) -> SelfSpeculative:
    """The fastest self-speculative setting that was measured, else a quarter of the layers and 3 drafts."""
    found = recommended(checkpoint.stored.folder)
    if found is None:
        return SelfSpeculative(default_exit(checkpoint.stored.size.n_layers), 3)
    return SelfSpeculative(found.row["exit_layer"], found.row["num_speculations"])
