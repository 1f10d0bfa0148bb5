"""What a person sees: our log lines on rank 0, warnings of libraries, and lines that do not tear a progress bar."""

import logging
import sys
import warnings

from tqdm import tqdm

LOGGERS = ("data", "models", "train")
# Warnings about what is as it should be: torchdata and torch among themselves; initial weights are drawn as a whole
# (models/spec.py), not by DTensor's random operators.
WARNINGS = (
    "'set_vital' is deprecated",
    "To get the last learning rate",
    "Torchinductor does not support code generation for complex",
    "DTensor .*may not have complete support",
)
# torchtitan's on looking up a CPU's peak for its MFU, on a default of its own, and on a variable that torchrun sets;
# asyncio's when W&B's process has ended.
NOISE = (
    "Peak flops undefined",
    "Error running lspci",
    "initial_load_model_only",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    "socket.send() raised exception",
)


class _Lines(logging.Handler):
    """Writes to stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)
        if not any(noise in message for noise in NOISE):
            tqdm.write(message, file=sys.stderr)


def set_up_logging(rank: int) -> None:
    """Our messages at INFO on rank 0, warnings alone on the others and from libraries."""
    for noise in WARNINGS:
        warnings.filterwarnings("ignore", message=noise)
    lines = _Lines()
    lines.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [lines]
    root.setLevel(logging.WARNING)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO if rank == 0 else logging.WARNING)
