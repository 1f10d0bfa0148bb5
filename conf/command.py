"""What every `python -m` command of ours does around its work: compose, and tell a user's mistakes in one line."""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import hydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from conf.strict import ConfigError, one_line, register_schema


def command(
    config_name: str,
    schema: type,
    action: Callable[[DictConfig], object],
    *,
    told: Mapping[type[BaseException], int],
    verbatim: Sequence[str] = (),
    interrupted: str = "interrupted",
) -> None:
    """Run `action` on the config composed from conf/<config_name>.yaml and the command line, unless Hydra answers.

    Args:
        config_name: of the primary config.
        schema: its dataclass.
        action: gets the composed config; converts and does the work.
        told: errors of the work that are told in one line, with the exit status of each; those of the configuration
            have 2. Under torchrun rank 0 alone tells.
        verbatim: keys whose values are text, taken from the command line as they are.
        interrupted: what to say on Ctrl-C.
    """
    register_schema(config_name, schema)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let its errors through to here
    sys.argv[1:] = [_quoted(word, verbatim) for word in sys.argv[1:]]
    statuses: dict[type[BaseException], int] = {ConfigError: 2, HydraException: 2, OmegaConfBaseException: 2, **told}
    try:
        if (raw := _compose(config_name)) is not None:
            action(raw)
    except tuple(statuses) as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {one_line(error, schema)}", file=sys.stderr)
        sys.exit(next(status for kind, status in statuses.items() if isinstance(error, kind)))
    except BrokenPipeError:  # whoever read our output, `head` for instance, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)


def _compose(config_name: str) -> DictConfig | None:
    """The composed config; None after --help, --cfg and the like, which Hydra answers."""
    composed: list[DictConfig] = []
    # What runs inside of hydra.main has its errors announced by Hydra; so nothing does.
    hydra.main(config_path="pkg://conf", config_name=config_name, version_base="1.3")(composed.append)()
    return composed[0] if composed else None


def _quoted(word: str, verbatim: Sequence[str]) -> str:
    """key=text with the text quoted for Hydra's grammar, in which brackets, commas, colons and ${} mean something."""
    key, is_override, text = word.partition("=")
    if not is_override or key not in verbatim:
        return word
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return f"{key}={QuotedString(text, Quote.single).with_quotes()}"
