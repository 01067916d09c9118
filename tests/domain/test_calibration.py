"""Calibration on streams whose dependence is known: moving averages of k independent values have φ = about k."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from everloop.domain.calibration import FLOORS, Calibration, block_bounds, calibrate
from everloop.domain.drift import compare_profiles
from everloop.domain.summaries import ProfileSummary
from tests.domain.examples import categories, numbers

ROWS = 400


def profile(values: np.ndarray, mix: np.ndarray) -> ProfileSummary:
    """The summary of a number with its nulls and of a category."""
    return ProfileSummary(len(values), {"x": numbers(values), "c": categories(mix)})


class Stream:
    """Rows that repeat the same draw `repeats` times: n of them are worth n / repeats."""

    def __init__(self, repeats: int, seed: int, *, missing: float = 0.05) -> None:
        self.rng = np.random.default_rng(seed)
        self.repeats, self.missing = repeats, missing

    def rows(self, n: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
        draws = -(-n // self.repeats)
        numbers_ = np.where(self.rng.random(draws) < self.missing, np.nan, self.rng.normal(0, 1, draws))
        mixed = self.rng.choice(["a", "b", "c"], draws, p=[0.5, 0.3, 0.2])
        return np.repeat(numbers_, self.repeats)[:n], np.repeat(mixed, self.repeats)[:n]

    def reference(self, blocks: int) -> tuple[list[ProfileSummary], ProfileSummary]:
        parts = [self.rows() for _ in range(blocks)]
        return [profile(*part) for part in parts], profile(*map(np.concatenate, zip(*parts, strict=True)))


def taught(repeats: int, *, blocks: int = 40, seed: int = 0) -> Calibration:
    return calibrate(*Stream(repeats, seed).reference(blocks), false_alarms=0.01)


def test_independent_rows_are_taken_as_independent() -> None:
    effects = [entry.design_effect for seed in range(10) for entry in taught(1, seed=seed).signals]
    assert np.mean(np.array(effects) == 1) > 0.85
    assert max(effects) < 5


def test_dependent_rows_count_for_at_most_what_they_are_worth() -> None:
    for seed in range(5):
        for entry in taught(8, seed=seed).signals:
            if entry.signal == "distribution" or (entry.column, entry.signal) == ("x", "nulls"):
                assert 7 < entry.design_effect < 24


def test_a_window_of_dependent_rows_alarms_without_calibration_and_not_with_it() -> None:
    stream = Stream(8, seed=3)
    blocks, whole = stream.reference(40)
    calibration = calibrate(blocks, whole, false_alarms=0.01)
    windows = [profile(*stream.rows()) for _ in range(150)]
    plain = [compare_profiles(whole, window, min_rows=20).verdict for window in windows]
    careful = [compare_profiles(whole, window, min_rows=20, calibration=calibration).verdict for window in windows]
    assert plain.count("drift") > 50
    assert careful.count("drift") <= 2


def test_a_real_shift_of_dependent_rows_is_still_seen() -> None:
    stream = Stream(8, seed=4)
    blocks, whole = stream.reference(40)
    values, mix = stream.rows()
    report = compare_profiles(
        whole, profile(values + 2, mix), min_rows=20, calibration=calibrate(blocks, whole, false_alarms=0.01)
    )
    assert report.drifted == ("x",)


def test_a_category_never_seen_is_expected_to_come_in_runs_where_the_others_do() -> None:
    for repeats, verdict in ((1, "drift"), (40, "no drift")):
        stream = Stream(repeats, seed=8)
        blocks, whole = stream.reference(40)
        values, mix = stream.rows()
        mix = np.where(np.arange(ROWS) < 40, "new", mix)  # one run of it in the window
        calibration = calibrate(blocks, whole, false_alarms=0.01)
        found = calibration.by_signal()
        assert found["c", "unseen"].design_effect >= found["c", "distribution"].design_effect
        report = compare_profiles(whole, profile(values, mix), min_rows=20, calibration=calibration)
        unseen = [test.is_drift for test in report.tests if test.signal == "unseen"]
        assert unseen == [verdict == "drift"]


def seasonal(blocks: int = 24) -> tuple[list[ProfileSummary], ProfileSummary]:
    """Blocks whose mean swings by 1 with a period of eight blocks."""
    rng = np.random.default_rng(5)
    mix = np.array(["a", "b"] * (ROWS // 2))
    parts = [rng.normal(np.sin(block * np.pi / 4), 0.5, ROWS) for block in range(blocks)]
    return [profile(part, mix) for part in parts], profile(np.concatenate(parts), np.tile(mix, blocks))


def test_a_window_must_differ_by_more_than_the_references_own_stretches_do() -> None:
    blocks, whole = seasonal()
    calibration = calibrate(blocks, whole, false_alarms=0.01)
    found = calibration.by_signal()["x", "distribution"]
    assert found.floor > 0.3
    verdicts = [compare_profiles(whole, b, min_rows=20, calibration=calibration).verdict for b in blocks]
    assert verdicts == ["no drift"] * 24
    assert calibration.alarmed_share == 0
    assert calibration.by_signal()["c", "distribution"].floor == FLOORS["distribution"]


def test_columns_that_hold_one_value_in_a_stretch_of_the_reference_are_known() -> None:
    """A year, a season: each window has one of them, and that is no stuck source."""
    rng = np.random.default_rng(5)
    parts = [(rng.normal(0, 1, ROWS), np.full(ROWS, "winter" if block < 6 else "summer")) for block in range(12)]
    whole = profile(*map(np.concatenate, zip(*parts, strict=True)))
    assert calibrate([profile(*part) for part in parts], whole, false_alarms=0.01).standing == ("c",)
    assert taught(1).standing == ()


def with_odd_blocks(*odd: int) -> Calibration:
    """Twenty blocks of which `odd` have a mean that is far from that of the others, each farther than the one before."""
    rng = np.random.default_rng(6)
    shifts = {block: 1.0 + order for order, block in enumerate(odd)}
    parts = [rng.normal(shifts.get(block, 0.0), 1, ROWS) for block in range(20)]
    mix = np.array(["a", "b"] * (ROWS // 2))
    whole = profile(np.concatenate(parts), np.tile(mix, 20))
    return calibrate([profile(part, mix) for part in parts], whole, false_alarms=0.01, recent=3)


def test_persistence_is_what_would_not_have_stood_on_the_reference() -> None:
    calm, one = with_odd_blocks(), with_odd_blocks(7)
    assert (calm.persistence_needed, calm.alarmed_share, calm.recent) == (1, 0, 3)
    assert (one.persistence_needed, one.alarmed_share) == (2, 0.05)
    assert "1 of them would have alarmed" in one.reason


def test_fewer_than_four_blocks_calibrate_nothing_and_say_so() -> None:
    blocks, whole = Stream(8, seed=0).reference(3)
    calibration = calibrate(blocks, whole, false_alarms=0.01)
    assert (calibration.is_calibrated, calibration.signals) == (False, ())
    report = compare_profiles(whole, blocks[0], min_rows=20, calibration=calibration)
    assert report.calibrated is False
    assert report.reason.endswith(
        "3 blocks of the reference, 4 are required to calibrate: default floors, rows taken as independent"
    )
    assert calibrate([], whole, false_alarms=0.01).blocks == 0


def test_a_calibration_is_the_same_after_it_was_stored() -> None:
    calibration = taught(8)
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


@pytest.mark.parametrize(
    ("rows", "window_rows", "count", "length"),
    [
        (50_000, 1000, 50, 1000),
        (1_000_000, 1000, 60, 1000),
        (10_000, 1000, 20, 500),
        (3000, 1000, 12, 250),
        (100, 1000, 0, 0),
    ],
)
def test_blocks_are_as_long_as_a_window_where_the_reference_has_enough_of_them(
    rows: int, window_rows: int, count: int, length: int
) -> None:
    bounds = block_bounds(rows, window_rows=window_rows)
    assert len(bounds) == count
    assert {stop - start for start, stop in bounds} == ({length} if count else set())
    if count:
        assert (bounds[0][0], bounds[-1][1]) == (0, rows)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(bounds))
