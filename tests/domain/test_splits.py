from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.domain.errors import NotEnoughData
from everloop.domain.splits import end_of, is_after, split_by_time, within_history
from tests.domain.examples import a_history, a_spec

HOURS = pd.DataFrame({"t": pd.date_range("2024-03-01", periods=72, freq="h")})


@settings(max_examples=40)
@given(rows=st.integers(40, 400), holdout=st.integers(20, 60), share=st.floats(0.001, 0.499))
def test_a_split_partitions_the_rows_in_order(rows: int, holdout: int, share: float) -> None:
    frame = pd.DataFrame({"n": range(rows)})
    spec = a_spec(search={"validation_share": share}, gates={"holdout_rows": holdout})
    if rows < 2 * holdout:
        with pytest.raises(NotEnoughData):
            split_by_time(frame, spec)
        return
    split = split_by_time(frame, spec)
    assert [*split.train["n"], *split.validation["n"], *split.holdout["n"]] == list(range(rows))
    assert split.known["n"].tolist() == list(range(rows - holdout))
    assert len(split.holdout) == holdout
    assert len(split.validation) >= 1
    assert abs(len(split.validation) - min(share * (rows - holdout), holdout)) <= 1
    assert len(split.train) >= 1


@pytest.mark.parametrize(("rows", "left"), [(39, 19), (20, 0), (5, 0)])
def test_a_holdout_larger_than_what_is_left_is_refused_with_the_numbers(rows: int, left: int) -> None:
    message = (
        rf"^{rows} labelled rows, 20 of them for the holdout, leave {left} to train on; "
        r"at least 20 are required: bring more data or lower gates.holdout_rows$"
    )
    with pytest.raises(NotEnoughData, match=message):
        split_by_time(a_history(rows), a_spec())


@pytest.mark.parametrize(("history", "rows"), [("all", 72), ("1h", 1), ("24h", 24), ("1d", 24), ("90m", 2), ("1w", 72)])
def test_a_history_reaches_back_from_the_newest_row(history: str, rows: int) -> None:
    kept = within_history(HOURS, history, "t")
    assert kept["t"].tolist() == HOURS["t"].tolist()[-rows:]


def test_a_history_of_a_day_holds_the_24_hours_up_to_the_newest_row() -> None:
    assert len(within_history(HOURS, "24h", "t")) == 24


def test_a_history_without_time_or_rows_is_left_alone() -> None:
    assert within_history(HOURS, "1d", None) is HOURS
    assert within_history(HOURS.head(0), "1d", "t").empty


def test_the_end_of_a_history_is_its_newest_time_or_its_length() -> None:
    assert end_of(HOURS, "t") == "2024-03-03T23:00:00"
    assert end_of(HOURS, None) == "72"


def test_rows_after_an_end_are_those_with_a_later_time() -> None:
    end = end_of(HOURS.head(70), "t")
    assert HOURS.index[is_after(HOURS, end, time="t")].tolist() == [70, 71]


def test_rows_after_an_end_without_time_are_those_beyond_its_length() -> None:
    holdout = HOURS.iloc[60:]
    assert holdout.index[is_after(holdout, "70", time=None, offset=60)].tolist() == [70, 71]
    assert is_after(holdout, "60", time=None, offset=60).all()
    assert not is_after(holdout, "72", time=None, offset=60).any()


@settings(max_examples=40)
@given(cut=st.integers(1, 71), timed=st.booleans())
def test_what_follows_an_end_is_exactly_what_it_did_not_include(cut: int, timed: bool) -> None:
    time = "t" if timed else None
    fresh = is_after(HOURS, end_of(HOURS.head(cut), time), time=time)
    assert HOURS.index[fresh].tolist() == list(range(cut, 72))
