"""How a model is used, hour by hour, and what is irregular about it against the same hours of earlier days.

The modified z-score (Iglewicz and Hoaglin 1993): distance from the median in robust standard deviations, MAD / 0.6745; here of
ln(1 + count) and ln(milliseconds). Few counts vary by chance alone, so a count must also be beyond what a Poisson process with
the usual rate gives; and a spike must be large enough to matter. Hours are UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
from scipy import stats

from everloop.domain.spec_values import Frozen

MIN_DAYS, MAX_DAYS = 4, 28
BEYOND = 3.5  # modified z-score of an outlier, as Iglewicz and Hoaglin recommend
TAIL = 1e-4  # probability of such a count by chance, one-sided
FACTOR = {"requests": 1.5, "errors": 2.0, "p95_latency_ms": 1.5}  # less than so many times the usual is no spike
_NORMAL = float(stats.norm.ppf(0.75))  # MAD of a standard normal, 0.6745
_LATENCY_SPREAD = 0.1  # robust standard deviation of ln(milliseconds) that is always granted
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
What = Literal["requests", "errors", "p95_latency_ms"]
_UNITS: dict[What, str] = {"requests": "requests", "errors": "errors", "p95_latency_ms": "ms at the 95th percentile"}


class HourUsage(Frozen):
    """What was asked of a model in the hour that starts at `hour`; errors are requests refused or failed."""

    hour: datetime
    requests: int = 0
    rows: int = 0
    errors: int = 0
    p95_latency_ms: float | None = None


class Spike(Frozen):
    """One number of one hour that is far from what is usual at this hour; `score` is negative for a drop.

    One that `goes_on` was as irregular, in the same direction, in the hour before: nothing new to tell.
    """

    hour: datetime
    what: What
    value: float
    typical: float
    score: float
    sentence: str
    goes_on: bool = False

    @property
    def about(self) -> str:
        """What it is, in a word: 'usage.errors.2024-03-01T10'."""
        return f"usage.{self.what}.{self.hour:%Y-%m-%dT%H}"


class UsageReport(Frozen):
    """The usage of a stretch of hours, and its spikes; `p95_latency_ms` is that of the slowest hour."""

    verdict: Literal["ok", "irregular", "undetermined"]
    reason: str
    spikes: tuple[Spike, ...]
    hours: int
    rows: int
    requests: int
    errors: int
    p95_latency_ms: float | None = None

    @property
    def begun(self) -> tuple[Spike, ...]:
        """The spikes of an hour after one without, which are for a person to look at."""
        return tuple(spike for spike in self.spikes if not spike.goes_on)


def judge_usage(history: Sequence[HourUsage], current: Sequence[HourUsage], *, seen_before: bool = True) -> UsageReport:
    """Whether the hours of `current` are like the same hours of at least four earlier days in `history`.

    An hour between others of which nothing is known had no requests. Surges and drops of requests count, and rises of errors
    and latency. The same hour and its neighbours are compared, of working days or weekends alone once four of them are known.
    `seen_before` says that the hour before them was judged in its time, so that a spike of it was told.
    """
    known, asked = _without_gaps(history), _without_gaps(current)
    spikes: list[Spike] = []
    judged = 0
    for usage in asked.values():
        for what in _UNITS:
            found = _judge(known, usage, what)
            if found is None:
                continue
            judged += 1
            before = asked.get(usage.hour - _HOUR) or (known.get(usage.hour - _HOUR) if seen_before else None)
            for spike in found:
                same = _judge(known, before, what) if before else None
                goes_on = any((one.score > 0) == (spike.score > 0) for one in same or ())
                spikes.append(spike.model_copy(update={"goes_on": goes_on}))
    slowest = [usage.p95_latency_ms for usage in asked.values() if usage.p95_latency_ms is not None]
    return UsageReport(
        verdict="irregular" if spikes else "ok" if judged else "undetermined",
        reason=_reason(spikes, len(asked), judged),
        spikes=tuple(spikes),
        hours=len(asked),
        rows=sum(usage.rows for usage in asked.values()),
        requests=sum(usage.requests for usage in asked.values()),
        errors=sum(usage.errors for usage in asked.values()),
        p95_latency_ms=max(slowest, default=None),
    )


def every_hour(known: Sequence[HourUsage], *, since: datetime, until: datetime) -> list[HourUsage]:
    """The hours that start from `since` on and before `until`; one of which nothing is known had no requests.

    A service that answers nobody leaves no trace: ask for its hours, and it is seen.
    """
    found = {start_of_hour(usage.hour): usage for usage in known}
    hour, end, result = start_of_hour(since), start_of_hour(until), []
    while hour < end:
        result.append(found.get(hour, HourUsage(hour=hour)))
        hour += _HOUR
    return result


def start_of_hour(moment: datetime) -> datetime:
    """The hour of `moment` in UTC; a time without a zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _without_gaps(hours: Sequence[HourUsage]) -> dict[datetime, HourUsage]:
    """Every hour from the first to the last, in order; of an hour that stands twice the last."""
    found = {(hour := start_of_hour(usage.hour)): usage.model_copy(update={"hour": hour}) for usage in hours}
    if not found:
        return {}
    first, last = min(found), max(found)
    span = [first + _HOUR * step for step in range(round((last - first) / _HOUR) + 1)]
    return {hour: found.get(hour, HourUsage(hour=hour)) for hour in span}


def _same_hours(known: Mapping[datetime, HourUsage], hour: datetime, what: What) -> tuple[np.ndarray, int] | None:
    """The values of this hour and its neighbours on earlier days, and the number of days; None if they are fewer than four."""
    by_day: dict[int, list[float]] = {}
    for day in range(1, MAX_DAYS + 1):
        around = [known.get(hour - day * _DAY + step * _HOUR) for step in (0, -1, 1)]
        values = [None if usage is None else _value(usage, what) for usage in around]
        if values[0] is not None:
            by_day[day] = [value for value in values if value is not None]
    alike = {day: values for day, values in by_day.items() if _is_weekend(hour - day * _DAY) == _is_weekend(hour)}
    chosen = alike if len(alike) >= MIN_DAYS else by_day
    if len(chosen) < MIN_DAYS:
        return None
    return np.concatenate([np.array(values) for values in chosen.values()]), len(chosen)


def _judge(known: Mapping[datetime, HourUsage], usage: HourUsage, what: What) -> list[Spike] | None:
    """The spike of an hour, if it has one, in a list; None if it cannot be judged."""
    earlier, value = _same_hours(known, usage.hour, what), _value(usage, what)
    return None if earlier is None or value is None else list(_spike(usage.hour, what, value, *earlier))


def _spike(hour: datetime, what: What, value: float, earlier: np.ndarray, days: int) -> Iterator[Spike]:
    """The spike that `value` is, if it is one."""
    score, typical = _score(what, value, earlier)
    rises = value > typical
    if abs(score) <= BEYOND or (not rises and what != "requests"):
        return
    if what != "p95_latency_ms" and _tail(value, typical, len(earlier)) >= TAIL:
        return
    larger, smaller = max(value, typical), min(value, typical)
    if larger < FACTOR[what] * smaller:
        return
    yield Spike(
        hour=hour,
        what=what,
        value=value,
        typical=typical,
        score=score,
        sentence=(
            f"{hour:%Y-%m-%d %H:%M} UTC: {value:,.0f} {_UNITS[what]}, {typical:,.0f} are usual at this hour "
            f"(median of {days} earlier days; {score:+.1f} robust standard deviations)"
        ),
    )


def _score(what: What, value: float, earlier: np.ndarray) -> tuple[float, float]:
    """The modified z-score of `value` among `earlier`, on the logarithmic scale, and their median.

    Its spread is at least that of a Poisson count, sd(ln(1 + x)) = 1 / sqrt(1 + mean) by the delta method.
    """
    typical = float(np.median(earlier))
    scale = np.log if what == "p95_latency_ms" else np.log1p
    logs = scale(earlier)
    middle = float(np.median(logs))
    least = _LATENCY_SPREAD if what == "p95_latency_ms" else 1 / np.sqrt(1 + typical)
    spread = max(float(np.median(np.abs(logs - middle))) / _NORMAL, least)
    return float((scale(value) - middle) / spread), typical


def _tail(value: float, typical: float, samples: int) -> float:
    """The probability of a count at least as far out, after `samples` Poisson counts around `typical`.

    Negative binomial: the predictive of a Poisson rate under Jeffreys' prior (Gelman et al., Bayesian Data Analysis, 2.6).
    """
    predictive = stats.nbinom(typical * samples + 0.5, samples / (samples + 1))
    return float(predictive.sf(value - 1) if value > typical else predictive.cdf(value))


def _value(usage: HourUsage, what: What) -> float | None:
    if what == "p95_latency_ms":
        return usage.p95_latency_ms if usage.p95_latency_ms else None
    return float(usage.requests if what == "requests" else usage.errors)


def _is_weekend(moment: datetime) -> bool:
    return moment.weekday() >= 5


def _reason(spikes: Sequence[Spike], hours: int, judged: int) -> str:
    if not hours:
        return "no whole hour since the last look"
    if not judged:
        return f"{hours} hours, and not one of them is known on {MIN_DAYS} earlier days; judged once there are"
    if not spikes:
        return f"{hours} hours like the same hours of earlier days"
    worst = max(spikes, key=lambda spike: abs(spike.score))
    return f"{len(spikes)} spikes in {hours} hours, the largest: {worst.sentence}"
