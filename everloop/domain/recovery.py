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

DEGRADED = frozenset({"degradation", "slow_decay"})


@dataclass(frozen=True)
class Unrestored:
    """The validated loss (mean per row) before the trouble began, and how many released retrainings have not brought it back."""

    before: float
    retrainings: int


def find_unrestored(
    validated: float, earlier: Sequence[RetrainingDecision], *, policy: MonitorSpec
) -> Unrestored | None:
    """What retrainings have not restored, None if nothing; `validated` is the loss that the champion was validated with.

    A trouble ends when the loss is restored. It is given up after `max_rejections` retrainings: the loss that was had then is what
    can be had, and a degradation from there begins a new one.
    """
    allowed, trouble = 1 + policy.max_loss_increase, None
    for decision in earlier:
        baseline = decision.performance.baseline_mean
        if not decision.released or baseline is None:
            continue
        if trouble is not None and baseline <= trouble.before * allowed:
            trouble = None
        degraded = not DEGRADED.isdisjoint(decision.reason_codes)
        given_up = trouble is not None and trouble.retrainings >= policy.max_rejections
        if trouble is None or (degraded and given_up):
            trouble = Unrestored(baseline, 1) if degraded else None
        elif degraded or "not_restored" in decision.reason_codes:
            trouble = Unrestored(trouble.before, trouble.retrainings + 1)
    return None if trouble is None or validated <= trouble.before * allowed else trouble
