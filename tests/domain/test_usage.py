"""Usage: surges, drops and slow hours are told, and a day like the others is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from scipy import stats

from everloop.domain.usage import HourUsage, UsageReport, every_hour, judge_usage, start_of_hour

START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
HOUR = timedelta(hours=1)


def traffic(days: int, level: float, *, seed: int = 0, spread: float = 0.0, weekend: float = 1.0) -> list[HourUsage]:
    """Poisson requests at a rate with a daily swing of 80 % around `level` an hour, and lognormal `spread` above Poisson."""
    rng = np.random.default_rng(seed)
    hours = [START + HOUR * step for step in range(24 * days)]
    swing = np.array([1 + 0.8 * np.sin(2 * np.pi * hour.hour / 24) for hour in hours])
    rates = level * swing * rng.lognormal(-(spread**2) / 2, spread, len(hours))
    rates *= [weekend if hour.weekday() >= 5 else 1.0 for hour in hours]
    return [
        HourUsage(
            hour=hour,
            requests=int(rng.poisson(rate)),
            rows=7,
            errors=int(rng.poisson(rate / 200)),
            p95_latency_ms=float(rng.lognormal(np.log(10), 0.1)),
        )
        for hour, rate in zip(hours, rates, strict=True)
    ]


def judge_last(hours: list[HourUsage], **changes: Any) -> UsageReport:
    """The report on the last hour, changed."""
    return judge_usage(hours[:-1], [hours[-1].model_copy(update=changes)])


def seen(report: UsageReport) -> list[tuple[str, float]]:
    return [(spike.what, spike.value) for spike in report.spikes]


@pytest.mark.parametrize("level", [0.5, 5, 50, 5000])
@pytest.mark.parametrize("days", [5, 15])
def test_a_day_of_seasonal_poisson_traffic_spikes_in_less_than_one_of_a_thousand_hours(level: float, days: int) -> None:
    spikes = {"requests": 0, "errors": 0, "p95_latency_ms": 0}
    for seed in range(25):
        hours = traffic(days, level, seed=seed)
        for spike in judge_usage(hours[:-24], hours[-24:]).spikes:
            spikes[spike.what] += 1
    assert spikes["requests"] + spikes["errors"] == 0  # of 600 hours each
    assert spikes["p95_latency_ms"] <= 2


def test_traffic_three_tenths_noisier_than_poisson_spikes_in_less_than_three_of_a_hundred_hours() -> None:
    found = [
        judge_usage(hours[:-24], hours[-24:]) for hours in (traffic(8, 500, seed=s, spread=0.3) for s in range(25))
    ]
    assert sum(len(report.spikes) for report in found) / (25 * 24) < 0.03


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"requests": 0}, [("requests", 0)]),
        ({"requests": 1000}, [("requests", 1000)]),
        ({"errors": 60}, [("errors", 60)]),
        ({"p95_latency_ms": 40.0}, [("p95_latency_ms", 40.0)]),
        ({"p95_latency_ms": 2.0, "errors": 0}, []),  # faster, and no error: nobody need look
    ],
)
def test_surges_drops_errors_and_slow_hours_are_spikes(changes: dict[str, Any], expected: list[Any]) -> None:
    report = judge_last(traffic(8, 100), **changes)
    assert seen(report) == expected
    assert report.verdict == ("irregular" if expected else "ok")


def test_a_spike_says_its_hour_its_value_and_what_is_usual() -> None:
    (spike,) = judge_last(traffic(8, 100), requests=1000).spikes
    assert spike.hour == START + timedelta(days=7, hours=23)
    assert spike.sentence.startswith("2024-01-08 23:00 UTC: 1,000 requests, ")
    assert "(median of 5 earlier days; +" in spike.sentence  # working days; the weekend is left out
    assert 60 < spike.typical < 100


def test_the_score_is_the_modified_z_score_of_the_logarithm() -> None:
    """Iglewicz and Hoaglin (1993), with the MAD of scipy."""
    hours = [HourUsage(hour=START + HOUR * step, requests=100 + 40 * (step // 24)) for step in range(24 * 5)]
    (spike,) = judge_usage(hours[:-24], [HourUsage(hour=hours[-2].hour, requests=5000)]).spikes
    earlier = np.log1p([usage.requests for usage in hours[:96] if usage.hour.hour >= 21])
    expected = (np.log1p(5000) - np.median(earlier)) / stats.median_abs_deviation(earlier, scale="normal")
    assert spike.score == pytest.approx(expected)


@pytest.mark.parametrize(("usual", "found"), [(1, []), (3, []), (20, [("requests", 0)])])
def test_a_drop_to_nothing_counts_only_where_nothing_is_improbable(usual: int, found: list[Any]) -> None:
    """A Poisson count of mean 3 is 0 in one hour of twenty, of mean 20 in one of 500 million."""
    hours = [HourUsage(hour=START + HOUR * step, requests=usual) for step in range(24 * 8)]
    assert seen(judge_last(hours, requests=0)) == found


def test_an_hour_of_which_nothing_is_known_between_others_had_no_requests() -> None:
    hours = traffic(8, 200)
    silent = hours[-24:-12] + hours[-6:]
    report = judge_usage(hours[:-24], silent)
    assert [spike.hour for spike in report.spikes] == [usage.hour for usage in hours[-12:-6]]
    assert report.hours == 24


def test_a_service_that_went_silent_is_seen_when_its_hours_are_asked_for() -> None:
    hours = traffic(8, 200)
    known, silence = hours[:-2], hours[-2].hour
    assert judge_usage(known, []).verdict == "undetermined"
    current = every_hour(known, since=silence, until=silence + 2 * HOUR + timedelta(minutes=59))
    assert [usage.hour for usage in current] == [silence, silence + HOUR]
    assert seen(judge_usage(known, current)) == [("requests", 0), ("requests", 0)]
    assert every_hour(known, since=START, until=silence) == known


def test_a_spike_that_goes_on_is_there_and_told_once() -> None:
    hours = traffic(8, 200)
    more = [usage.model_copy(update={"requests": 5000}) for usage in hours[-3:]]
    report = judge_usage(hours[:-3], more)
    assert [spike.goes_on for spike in report.spikes] == [False, True, True]
    assert report.begun == report.spikes[:1]
    later = judge_usage([*hours[:-3], *more[:2]], more[2:])
    assert (later.verdict, later.begun) == ("irregular", ()), "its beginning was told by an earlier look"
    unseen = judge_usage([*hours[:-3], *more[:2]], more[2:], seen_before=False)
    assert len(unseen.begun) == 1, "nobody looked at the hours before"
    ended = judge_usage([*hours[:-3], more[0]], [hours[-2].model_copy(update={"requests": 0})])
    assert len(ended.begun) == 1, "a drop after a surge is news"


def test_a_weekend_is_compared_with_weekends_once_four_of_its_days_are_known() -> None:
    quiet = traffic(
        21, 300, weekend=0.2
    )  # the last day is a Sunday, after two Saturdays and two Sundays and one Saturday
    assert judge_usage(quiet[:-24], quiet[-24:]).verdict == "ok"
    assert "requests" in {what for what, _ in seen(judge_usage(quiet[: 6 * 24], quiet[6 * 24 : 7 * 24]))}


def test_too_few_days_are_undetermined_and_the_sums_are_told_all_the_same() -> None:
    hours = traffic(4, 100)
    report = judge_usage(hours[:-24], hours[-24:])
    assert report.verdict == "undetermined"
    assert report.reason == "24 hours, and not one of them is known on 4 earlier days; judged once there are"
    assert report.requests == sum(usage.requests for usage in hours[-24:])
    assert report.errors == sum(usage.errors for usage in hours[-24:])
    assert report.rows == 24 * 7
    assert report.p95_latency_ms == max(usage.p95_latency_ms for usage in hours[-24:])
    assert judge_usage(hours, []).verdict == "undetermined"


def test_hours_without_a_zone_are_utc() -> None:
    assert start_of_hour(datetime(2024, 1, 1, 5, 59)) == datetime(2024, 1, 1, 5, tzinfo=UTC)
    hours = traffic(8, 100)
    naive = [usage.model_copy(update={"hour": usage.hour.replace(tzinfo=None)}) for usage in hours]
    assert judge_usage(naive[:-24], naive[-24:]) == judge_usage(hours[:-24], hours[-24:])


def test_a_report_is_json_and_comes_back() -> None:
    report = judge_last(traffic(8, 100), requests=0)
    assert UsageReport.model_validate_json(report.model_dump_json()) == report
