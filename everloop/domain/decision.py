"""A decision about one window: what was seen, what it leads to, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from everloop.domain.evidence import Evidence
from everloop.domain.windows import Window

Action = Literal["none", "alert", "retrain"]


class RetrainingDecision(Evidence):
    """What was decided about one window of one model, with everything it rests on.

    `asks` are those of the reason codes that asked for an alert or a retraining, whatever held it back. `trained` says that
    its retraining ended with a challenger: `released`, `rejected` by its gates, or waiting for a person.
    """

    id: str
    model: str
    version: str
    window: Window
    action: Action
    reason_codes: tuple[str, ...]
    reason: str
    asks: tuple[str, ...] = ()
    outcome: str | None = None
    trained: bool = False
    released: bool = False
    rejected: bool = False
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
        """True if its challenger did not pass the gates, and nobody has looked at it yet."""
        return self.is_fired and self.rejected and self.acknowledged_by is None

    def has_missed(self, window: Window) -> bool:
        """True if rows came into its `window`, which is given as it is now, after the decision, and it has not fired."""
        newest, known = window.last, self.window.last
        return not self.is_fired and newest is not None and known is not None and newest > known

    def may_change(self, labelled: int, *, rows: int, min_label_coverage: float) -> bool:
        """True if the labels that have come since may change it: it has not fired, and `labelled` of its `rows` rows have one now.

        They may once enough of them are there to score the window, then for every twentieth of its rows, and with the last.
        """
        new = labelled - self.labelled_rows
        if self.is_fired or new <= 0:
            return False
        can_be_scored = self.performance.reason_code == "labels_missing" and labelled >= min_label_coverage * rows
        return can_be_scored or new >= max(1, rows // 20) or labelled == rows


@dataclass(frozen=True)
class Past:
    """What a decision goes by, oldest first: those about the windows before its own, and all others that started a retraining.

    The latter may be about later windows: labels come in any order.
    """

    earlier: Sequence[RetrainingDecision] = ()
    fired: Sequence[RetrainingDecision] = ()


def decision_id(model: str, window: Window) -> str:
    """The id of the one decision about a window of a model."""
    return f"{model}/{window.id}"
