"""Has a retraining restored the loss, or is the world still ahead of the model?

A challenger that is fitted right after a change has seen little of what is new. It may pass its gates, being better than a
champion that has seen nothing of it, and its own validated loss is then the yardstick that hides how much better the next
one would be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from everloop.domain.decision import RetrainingDecision
from everloop.domain.monitor_spec import MonitorSpec

TROUBLE = frozenset({"degradation", "slow_decay", "not_restored"})


@dataclass(frozen=True)
class Unrestored:
    """The validated loss (mean per row) before the trouble began, and how many released retrainings have not brought it back."""

    before: float
    retrainings: int


def find_unrestored(
    validated: float, earlier: Sequence[RetrainingDecision], *, policy: MonitorSpec
) -> Unrestored | None:
    """What retrainings have not restored, None if nothing; `validated` is the loss that the champion was validated with."""
    allowed = 1 + policy.max_loss_increase
    before, retrainings = None, 0
    for decision in earlier:
        baseline = decision.performance.baseline_mean
        if not decision.released or baseline is None:
            continue
        if before is not None and baseline <= before * allowed:
            before, retrainings = None, 0
        if TROUBLE & set(decision.reason_codes):
            before, retrainings = (baseline, 1) if before is None else (before, retrainings + 1)
    return None if before is None or validated <= before * allowed else Unrestored(before, retrainings)
