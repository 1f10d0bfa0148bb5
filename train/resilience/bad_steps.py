"""Steps whose update is not taken: their loss or gradient is not finite, or their loss is far above those before.

All ranks decide from the same numbers, so they decide alike. What the decision depends on (the losses of accepted
steps, the numbers of skipped ones) is saved with each checkpoint, so that a continued run decides as one in one piece.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

MIN_LOSSES = 32
"""Accepted losses of an exit before another one can be called a spike."""
NARROWEST = 0.02
"""The spread of losses is taken to be at least this share of their median: a smooth curve is no reason to skip."""


@dataclass(kw_only=True)
class BadStepsConfig:
    """Which steps are skipped, and how many may be."""

    spike_sigma: float | None = 10.0
    """A loss is a spike when it is more than so many standard deviations above the median of the window. The deviation
    is estimated from the median distance to the median, which spikes do not move. null: only what is not finite is
    skipped."""
    window: int = 128
    """Accepted steps that a loss is compared with; those with the same deepest exit, since other exits have other
    losses."""
    most: int = 10
    """Skipped steps among the last `window` steps; one more stops the run."""

    def __post_init__(self) -> None:
        sigma = self.spike_sigma
        if sigma is not None and not 0 < sigma < math.inf:
            raise ValueError(f"bad_steps.spike_sigma={sigma}: must be null or a number above 0")
        for key, least in (("window", MIN_LOSSES), ("most", 0)):
            if getattr(self, key) < least:
                raise ValueError(f"bad_steps.{key}={getattr(self, key)}: must be at least {least}")


class BadSteps:
    """Judges each step once, in order."""

    def __init__(self, options: BadStepsConfig, state: dict[str, Any] | None = None) -> None:
        """Begin, or go on from the `state` of an earlier one."""
        state = state or {}
        self.options = options
        self.total: int = state.get("total", 0)
        """Skipped steps of the whole run."""
        self.recent: list[int] = list(state.get("recent", ()))
        """Those among the last `window` steps."""
        self.losses: dict[int, list[float]] = {int(e): list(v) for e, v in state.get("losses", {}).items()}
        """Exit layer -> the losses of the last accepted steps that had it as their deepest exit."""

    def state(self) -> dict[str, Any]:
        """As plain values, which JSON keeps exactly."""
        return {
            "total": self.total,
            "recent": list(self.recent),
            "losses": {str(exit_layer): list(losses) for exit_layer, losses in self.losses.items()},
        }

    def judge(self, step: int, *, loss: float, grad_norm: float, exit_layer: int, exit_loss: float) -> str | None:
        """Why a step is to be skipped; None if it is accepted.

        Args:
            step: its number.
            loss: the weighted loss over the exits.
            grad_norm: before clipping; not finite if it is not on any rank.
            exit_layer: of the deepest exit trained in this step.
            exit_loss: cross entropy there.
        """
        window = self.options.window
        why = None
        if not math.isfinite(loss) or not math.isfinite(exit_loss):
            why = "the loss is not finite"
        elif not math.isfinite(grad_norm):
            why = "the gradient is not finite"
        elif exit_loss > (limit := self.limit(exit_layer)):
            why = f"the loss after {exit_layer} layers is a spike, above {limit:.4g}"
        self.recent = [bad for bad in self.recent if bad > step - window]
        if why is None:
            losses = self.losses.setdefault(exit_layer, [])
            losses.append(exit_loss)
            del losses[:-window]
        else:
            self.recent.append(step)
            self.total += 1
        return why

    def limit(self, exit_layer: int) -> float:
        """The loss above which the next one would be a spike."""
        losses = self.losses.get(exit_layer, [])
        if self.options.spike_sigma is None or len(losses) < MIN_LOSSES:
            return math.inf
        median = float(np.median(losses))
        deviation = 1.4826 * float(np.median(np.abs(np.asarray(losses) - median)))
        return median + self.options.spike_sigma * max(deviation, NARROWEST * abs(median))

    @property
    def too_many(self) -> bool:
        """Whether the run is to be stopped."""
        return len(self.recent) > self.options.most
