"""What every `python -m` command of ours does around its work: compose, and tell a user's mistakes in one line."""

import io
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr

import hydra
from hydra import compose, initialize_config_module
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from conf.errors import UserError, of_machine, reason
from conf.multirun import LIST_JOBS, is_multirun, jobs_of, run_all, with_own_output
from conf.strict import ConfigError, convert, one_line, register_schema

RANK_0_SPEAKS = 3.0
"""Seconds that the other ranks wait before they end with an error that rank 0 reports."""


def command(
    config_name: str,
    schema: type,
    action: Callable[[DictConfig], object],
    *,
    verbatim: Sequence[str] = (),
    check: Callable[[DictConfig], object] | None = None,
    own_output: str = "output",
    interrupted: str = "interrupted",
) -> None:
    """Run `action` on the config composed from conf/<config_name>.yaml and the command line, unless Hydra answers.

    A UserError ends the process in one line, with the exit status of its class; under torchrun rank 0 alone prints it.
    A command's file imports at the top only what --help and the check of a configuration need, `action` the rest:
    torch and its like take seconds (tests/test_startup.py).

    Args:
        config_name: of the primary config.
        schema: its dataclass.
        action: gets the composed config; converts and does the work.
        verbatim: keys whose values are text, taken from the command line as they are.
        check: raises ConfigError for a config that the action would refuse; None: its conversion to the schema.
        own_output: the key of the file or folder that each job of a --multirun gets for itself.
        interrupted: what to say on Ctrl-C.
    """
    register_schema(config_name, schema)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let its errors through to here
    words = sys.argv[1:]
    sys.argv[1:] = [_quoted(word, verbatim) for word in words]
    try:
        if is_multirun(words):
            sys.exit(_run_all(config_name, words, verbatim, check or (lambda raw: convert(raw, schema)), own_output))
        if (raw := _compose(config_name)) is not None:
            action(raw)
    except BrokenPipeError:  # whoever read our output, `head` for instance, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        # UserError's, and that of the sandbox, which imports nothing of ours.
        status, line = getattr(error, "exit_status", None), None
        if isinstance(error, HydraException | OmegaConfBaseException):
            status = UserError.exit_status
        if status is None and (line := of_machine(error)):
            status = UserError.exit_status
        if status is None:
            raise
        if line or os.environ.get("RANK", "0") == "0":  # what happened to one machine is not known to rank 0
            print(f"error: {_printable(line or one_line(error, schema))}", file=sys.stderr)
        else:  # torchrun ends all ranks when one has ended, and rank 0 must have said what is wrong before
            time.sleep(RANK_0_SPEAKS)
        sys.exit(status)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)


def _compose(config_name: str) -> DictConfig | None:
    """The composed config; None after --help, --cfg and the like, which Hydra answers."""
    composed: list[DictConfig] = []
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            # What runs inside of hydra.main has its errors announced by Hydra; so nothing does.
            hydra.main(config_path="pkg://conf", config_name=config_name, version_base="1.3")(composed.append)()
    except SystemExit as end:
        if end.code == UserError.exit_status:  # argparse's, which has said the usage of all its flags
            wrong = said.getvalue().strip().rpartition("error: ")[2]
            raise ConfigError(f"{wrong}; --hydra-help lists the flags, --help the keys") from None
        raise
    except HydraException:  # some are OSErrors
        raise
    except (ValueError, OSError) as error:  # for values that a group or a flag cannot have
        words = [word for word in sys.argv[1:] if "." not in word.partition("=")[0]]
        raise ConfigError(f"{reason(error)} (one of {' '.join(words)})") from None
    sys.stderr.write(said.getvalue())
    return composed[0] if composed else None


def _printable(line: str) -> str:
    """The line with what would end it, or move the cursor, written out: a file's name may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


def _run_all(
    config_name: str, words: Sequence[str], verbatim: Sequence[str], check: Callable[[DictConfig], object], key: str
) -> int:
    """All jobs of --multirun, none of which starts or is listed before every one's configuration has been checked."""
    jobs = []
    for job in jobs_of(words, lambda word: _quoted(word, verbatim)):
        with initialize_config_module("conf", version_base="1.3"):
            raw = compose(config_name, [_quoted(word, verbatim) for word in job.overrides])
        try:
            check(raw.copy())
        except ConfigError as error:
            raise ConfigError(f"{error} (in job {job.name})") from None
        jobs.append(with_own_output(job, raw, key, verbatim=key in verbatim))
    if LIST_JOBS in words:
        print(*(shlex.join(job.overrides) for job in jobs), sep="\n")
        return 0
    return run_all(jobs, lambda line: print(line, file=sys.stderr, flush=True))


def _quoted(word: str, verbatim: Sequence[str]) -> str:
    """key=text with the text quoted for Hydra's grammar, in which brackets, commas, colons and ${} mean something."""
    key, is_override, text = word.partition("=")
    if not is_override or key not in verbatim:
        return word
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return f"{key}={QuotedString(text, Quote.single).with_quotes()}"
