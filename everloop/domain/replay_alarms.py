"""False and missed alarms of a replay, where somebody says when the world changed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from everloop.domain.errors import SpecError
from everloop.domain.replay_timeline import Timeline
from everloop.domain.retraining import RetrainingDecision
from everloop.domain.spec_values import Frozen

# growth is no alarm: it says that there is more to learn from, not that something is wrong
_ALARMS = {"degradation", "slow_decay", "drift", "data_quality"}


class AlarmCount(Frozen):
    """How the alarms of a policy meet the change points.

    `waited` holds, for each change point, the windows until its first alarm, 0 for the window of the change itself, None if
    it was missed. An alarm is false if no change lies in its window or the `within` windows before it.
    """

    changes: tuple[int, ...]
    within: int
    alarms: int
    false_alarms: int
    missed: int
    waited: tuple[int | None, ...]


def is_alarm(decision: RetrainingDecision) -> bool:
    """True if a signal of its window stands, whether it was acted on, held back or only reported."""
    return not _ALARMS.isdisjoint(decision.reason_codes)


def count_alarms(alarmed: Sequence[bool], changes: Sequence[int], *, within: int) -> AlarmCount:
    """How the windows with an alarm meet the windows in which something changed."""
    ordered = sorted(set(changes))
    found = [index for index, alarm in enumerate(alarmed) if alarm]
    waited: list[int | None] = []
    for change, after in zip(ordered, [*ordered[1:], len(alarmed)], strict=True):
        first = next((index for index in found if change <= index < min(after, change + within + 1)), None)
        waited.append(None if first is None else first - change)
    explained = {index for index in found if any(0 <= index - change <= within for change in ordered)}
    return AlarmCount(
        changes=tuple(ordered),
        within=within,
        alarms=len(found),
        false_alarms=len(found) - len(explained),
        missed=sum(wait is None for wait in waited),
        waited=tuple(waited),
    )


def window_of(change: str, timeline: Timeline, *, has_time: bool) -> int:
    """The window in which `change` lies: the number of a window such as '12', 'row:9000', or an event time.

    Raises:
        SpecError: it is none of these, or lies outside of the windows.
    """
    stretches = timeline.stretches
    if change.isdigit():
        found = int(change) if int(change) < len(stretches) else None
    elif change.startswith("row:") and change[4:].isdigit():
        found = next((s.index for s in stretches if s.first <= int(change[4:]) < s.last), None)
    else:
        moment = pd.to_datetime(change, errors="coerce", utc=True) if has_time else pd.NaT
        if pd.isna(moment):
            raise SpecError(
                f"change point {change!r}: write the number of a window such as 12, row:9000"
                + (", or an event time such as 2026-01-31" if has_time else "; the spec has no time column")
            )
        naive = moment.tz_localize(None).isoformat()
        ends = [s.window.end > naive or (s.window.end == naive and not timeline.spans) for s in stretches]
        found = ends.index(True) if any(ends) and stretches[0].window.start <= naive else None
    if found is None:
        raise SpecError(
            f"change point {change!r} lies outside of the replay: {len(stretches)} windows, rows {stretches[0].first:,} to "
            f"{stretches[-1].last - 1:,}, {stretches[0].window.start} to {stretches[-1].window.end}"
        )
    return found
