"""A decision about one window: what was seen, what it leads to, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from everloop.domain.evidence import Evidence
from everloop.domain.spec_values import Frozen
from everloop.domain.windows import Window

Action = Literal["none", "alert", "retrain"]


class Alert(Frozen):
    """One thing that a person is asked to look at; `number` says with which of the alerts about its window: 1, 2, …"""

    about: str
    sentence: str
    number: int = 1


class RetrainingDecision(Evidence):
    """What was decided about one window of one model, with everything it rests on.

    `asks` are those of the reason codes that asked for an alert or a retraining, whatever held it back. `trained` says that
    its retraining ended with a challenger: `released`, `rejected` by its gates, or waiting for a person. `alerts` are all that
    a person was ever asked about the window, though it was judged again since and what was wrong is gone. `went_by` are the recent
    windows that it counted, by id, with what they said.
    """

    id: str
    model: str
    version: str
    window: Window
    action: Action
    reason_codes: tuple[str, ...]
    reason: str
    asks: tuple[str, ...] = ()
    alerts: tuple[Alert, ...] = ()
    went_by: dict[str, str] | None = None
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

    @property
    def witness(self) -> str:
        """What later windows count it for: a loss that degraded and every test that says drift, of all rows and of slices."""
        parts = [("", self.performance, self.drift), *((one.name, one.performance, one.drift) for one in self.slices)]
        return "; ".join(
            f"{name} {what}".strip()
            for name, performance, drift in parts
            for what in [
                *(["degraded"] if performance.verdict == "degraded" else []),
                *(" ".join(signal) for signal in sorted(drift.signals)),
            ]
        )

    def is_overtaken(self, earlier: Sequence[RetrainingDecision], *, recent: int) -> bool:
        """True if a window among the `earlier` ones, as they are decided now, says something else than when it went by them.

        One that has fired stays, and one of an earlier Everloop, which did not keep what it went by.
        """
        if self.is_fired or self.went_by is None:
            return False
        now = recent_before(self.version, earlier, merged=self.merged_windows, recent=recent)
        return any(self.went_by.get(decision.window.id) != decision.witness for decision in now)

    def following(self, before: RetrainingDecision | None) -> RetrainingDecision:
        """This decision with the alerts of the one `before` it about the same window; what is new has the next number."""
        if before is None:
            return self
        known, last = [alert.about for alert in before.alerts], max([0, *(alert.number for alert in before.alerts)])
        if before.action == "alert" and not before.alerts:  # of an earlier Everloop, which kept codes only
            known = [alert.about for alert in self.alerts if alert.about.partition(".")[0] in before.reason_codes]
        new = [alert.model_copy(update={"number": last + 1}) for alert in self.alerts if alert.about not in known]
        return self.model_copy(update={"alerts": (*before.alerts, *new)})

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


def spell_of(version: str, decisions: Sequence[RetrainingDecision]) -> list[RetrainingDecision]:
    """The newest of `decisions`, oldest first, that are about `version` without another one between: since it went live."""
    newest = takewhile(lambda decision: decision.version == version, reversed(decisions))
    return list(newest)[::-1]


def recent_before(
    version: str, earlier: Sequence[RetrainingDecision], *, merged: int, recent: int
) -> list[RetrainingDecision]:
    """Those of the `earlier` decisions that a window of `version` goes by: `recent - 1` at most, since it went live.

    Windows that were merged into it share its rows: they are no second witness.
    """
    spell = spell_of(version, earlier)
    others = spell[: max(len(spell) - merged, 0)]
    return others[-(recent - 1) :] if recent > 1 else []


def decision_id(model: str, window: Window) -> str:
    """The id of the one decision about a window of a model."""
    return f"{model}/{window.id}"
