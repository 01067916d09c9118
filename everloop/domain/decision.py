"""A decision about one window: what was seen, what it leads to, and what became of it."""

from __future__ import annotations

from typing import Literal

from everloop.domain.evidence import Evidence
from everloop.domain.windows import Window

Action = Literal["none", "alert", "retrain"]


class RetrainingDecision(Evidence):
    """What was decided about one window of one model, with everything it rests on."""

    id: str
    model: str
    version: str
    window: Window
    action: Action
    reason_codes: tuple[str, ...]
    reason: str
    outcome: str | None = None
    released: bool = False
    acknowledged_by: str | None = None
    published: bool = False

    @property
    def headline(self) -> str:
        """The first sentence of the reason: the signal that decided."""
        return self.reason.split("; ")[0]

    @property
    def is_fired(self) -> bool:
        """True if it started a retraining."""
        return self.action == "retrain"

    @property
    def was_rejected(self) -> bool:
        """True if its retraining ended, nothing went live, and nobody has looked at it yet."""
        return self.is_fired and self.outcome is not None and not self.released and self.acknowledged_by is None

    def may_change(self, labelled: int) -> bool:
        """True while labels may still change it: it has not fired, and `labelled` rows are more than it was scored on.

        A window that was scored is scored again for every twentieth of its rows whose labels have come since.
        """
        if self.is_fired:
            return False
        if self.performance.reason_code == "labels_missing":
            return True
        return labelled - self.performance.labelled >= max(1, self.performance.rows // 20)


def decision_id(model: str, window: Window) -> str:
    """The id of the one decision about a window of a model."""
    return f"{model}/{window.id}"
