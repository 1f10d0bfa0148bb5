"""When to end a draft: tau_E = (mean confidence of accepted drafts + mean of rejected ones) / 2, per exit layer E."""

from collections import defaultdict

from eval.engine.policies.decayed import DecayedMean
from eval.engine.policy import Constant, Outcome, Plan

DECAY = 0.95
"""Weight of a confidence for each one that has come after it."""


class Threshold:
    """tau of one exit layer. It moves with the text, since both means forget."""

    def __init__(self) -> None:
        self.accepted, self.rejected = DecayedMean(DECAY), DecayedMean(DECAY)

    @property
    def tau(self) -> float:
        """The middle between both means; 0, which stops nothing, until there are both."""
        accepted, rejected = self.accepted.mean, self.rejected.mean
        return 0.0 if accepted is None or rejected is None else (accepted + rejected) / 2

    def learn(self, outcome: Outcome) -> None:
        """From the drafts on which the full model has decided: the accepted ones and the first that is rejected."""
        for n, row in zip(outcome.n_accepted, outcome.confidences, strict=False):
            for confidence in row[:n]:
                self.accepted.add(confidence)
            for confidence in row[n : n + 1]:
                self.rejected.add(confidence)


class Confident:
    """The session of `ConfidenceStop`: rounds of one exit that end where the draft is unsure."""

    def __init__(self, plan: Plan, n_layers: int) -> None:
        self._constant = Constant(plan, n_layers)
        self.thresholds: dict[int, Threshold] = defaultdict(Threshold)

    def plan(self, room: int) -> Plan:
        """As many drafts as there is room for, up to where one is unsure."""
        plan = self._constant.plan(room)
        return plan._replace(stop_below=self.thresholds[plan.exit_layer].tau) if plan.num_speculations else plan

    def learn(self, outcome: Outcome) -> None:
        """Move the threshold."""
        if outcome.n_drafted:
            self.thresholds[outcome.plan.exit_layer].learn(outcome)
