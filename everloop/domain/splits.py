"""Order and splits: the newest rows judge, the rows before them choose, the rest teach."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from everloop.domain.errors import NotEnoughData
from everloop.domain.spec import ModelSpec
from everloop.domain.spec_values import parse_duration, parse_share


@dataclass(frozen=True)
class Split:
    """Three consecutive stretches of one history; no row stands in two of them.

    A configuration is searched on `train` against `validation`; the challenger is fitted on both and judged on `holdout`.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    holdout: pd.DataFrame

    @property
    def known(self) -> pd.DataFrame:
        """Everything before the holdout: what the challenger is fitted on."""
        return pd.concat([self.train, self.validation])


def split_by_time(frame: pd.DataFrame, spec: ModelSpec) -> Split:
    """The rows of `frame` (n rows, ordered by event time) as train, validation and the newest `holdout_rows`.

    Raises:
        NotEnoughData: fewer rows are left for training than the holdout has.
    """
    known = frame.iloc[: -spec.gates.holdout_rows]
    if len(known) < spec.gates.holdout_rows:
        raise NotEnoughData(
            f"{len(frame):,} labelled rows, {spec.gates.holdout_rows:,} of them for the holdout, leave {max(len(known), 0):,} to train on; "
            f"at least {spec.gates.holdout_rows:,} are required: bring more data or lower gates.holdout_rows"
        )
    # no more rows than the holdout has: after a change, what is older says which history was best before it
    cut = len(known) - max(1, min(round(len(known) * spec.search.validation_share), spec.gates.holdout_rows))
    return Split(train=known.iloc[:cut], validation=known.iloc[cut:], holdout=frame.iloc[-spec.gates.holdout_rows :])


def within_history(frame: pd.DataFrame, history: str, time: str | None) -> pd.DataFrame:
    """The newest rows of `frame` (in time order): all, a share of them, or those less than a span older than the newest."""
    if (share := parse_share(history)) is not None:
        return frame.iloc[len(frame) - max(1, round(share * len(frame))) :] if len(frame) else frame
    if history == "all" or time is None or frame.empty:
        return frame
    return frame[frame[time] > frame[time].iloc[-1] - parse_duration(history)]


def end_of(frame: pd.DataFrame, time: str | None) -> str:
    """Where a history ends: the ISO event time of its newest row or, without a time column, its number of rows."""
    return str(len(frame)) if time is None else pd.Timestamp(frame[time].iloc[-1]).isoformat()


def is_after(frame: pd.DataFrame, end: str, *, time: str | None, offset: int = 0) -> pd.Series:
    """True for each row that comes after `end`, as `end_of` writes it; `offset` is the position of the first row."""
    if time is None:
        return pd.Series(range(offset, offset + len(frame)), index=frame.index) >= int(end)
    return frame[time] > pd.Timestamp(end)
