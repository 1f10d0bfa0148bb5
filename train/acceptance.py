"""Measure on a GPU what needs one, within ten minutes: `python -m train.acceptance device=cuda`.

Parity with the CPU, training with and without LayerSkip, a run of train.pretrain, decoding, and collectives; each a
process of its own with a share of the time. One that fails is a row that says so.
"""

import signal
import sys

from omegaconf import DictConfig

from conf.command import command
from conf.strict import convert
from train.gpu.config import AcceptanceConfig


def accept(raw: DictConfig) -> None:
    """Run the steps, write the page after each, print it; exit status 1 if one has failed."""
    config = convert(raw, AcceptanceConfig)
    from train.gpu.page import page
    from train.gpu.session import Session

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as on Ctrl-C, the step under way ends with this process
    session = Session(config)
    session.carry_out()
    print(page(session.record))
    print(session.output)
    if session.failed:
        print(f"{len(session.failed)} steps have failed: {', '.join(session.failed)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    command(
        "acceptance",
        AcceptanceConfig,
        accept,
        interrupted="interrupted; the table has the steps that are done, and the same command goes on",
    )
