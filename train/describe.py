"""Say what a run will be, without a GPU, its weights or its data: `python -m train.describe experiment=...`."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from conf.command import command
from conf.errors import reason
from conf.output import writable
from conf.strict import ConfigError, check_keys, register_schema
from train.config import PretrainConfig
from train.cost.describe_config import DescribeConfig
from train.cost.description import description
from train.cost.facts import facts_of
from train.resolve import resolve


def describe(raw: DictConfig) -> None:
    """Check as a run would, compute, print, draw."""
    check_keys(raw, DescribeConfig)
    if OmegaConf.is_missing(raw.data, "source"):
        raw.data.source = None  # a run needs it, its description does not
    if raw.train.precision == "auto":
        raw.train.precision = "bf16"  # of the GPUs that it is about, not of this machine
    if raw.train.compile is None:
        raw.train.compile = True  # likewise
    world_size = raw.describe.world_size or _ranks(raw)
    config = resolve(raw, world_size, DescribeConfig)
    assert isinstance(config, DescribeConfig)
    facts = facts_of(config, world_size)
    picture = _draw(config)  # before anything is printed: so that an error about the path stands alone
    print(description(config, world_size, facts))
    print(f"\n{picture}: p(l, t) and e~(t, l)")


def _ranks(raw: DictConfig) -> int:
    """The number of ranks that take a step's rows at once; the checks of a run tell what is wrong with the numbers."""
    rows, local = (OmegaConf.select(raw, f"train.{key}_batch_size") for key in ("global", "local"))
    return max(1, rows // local) if rows and local and local > 0 else 1


def _draw(config: DescribeConfig) -> Path:
    from train.cost.schedule_plot import plot_schedules  # matplotlib takes a second

    path = writable(config.describe.output, "describe.output")
    try:
        plot_schedules(config, path)
    except ValueError as error:  # an ending that is no picture's
        raise ConfigError(f"describe.output={path}: {reason(error)}") from None
    return path


if __name__ == "__main__":
    register_schema("pretrain", PretrainConfig)  # conf/describe.yaml builds on conf/pretrain.yaml
    command("describe", DescribeConfig, describe, verbatim=["describe.output"])
