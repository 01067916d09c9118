"""The data quality of one column of a window, given what training saw of it.

An error means that training on these rows would be training on broken data; a warning is for a person to read. A share counts
only if its rise is significant and above a floor, so that few rows do not alarm by chance and many rows do not alarm by
harmless change. What is usual in the training data's own blocks (nulls every night, a few new shops every week) is neither; an
outage that training saw once is an error again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from everloop.domain.calibration import SignalCalibration
from everloop.domain.checks import Finding
from everloop.domain.schema import FeatureSchema
from everloop.domain.summaries import ColumnSummary
from everloop.domain.two_sample import ShareRise, Signal

TESTS = 6  # of one column, at most
NULLS_WARN, NULLS_FAIL = 0.01, 0.2  # rise of the share of nulls
BROKEN_FAIL = 0.01  # share of infinite or impossible values: training refuses a single one, the window waits for more
UNSEEN_WARN, RESPELT_FAIL = 0.01, 0.2
FORM_FAIL, PURE = 0.2, 0.95  # a column is numbers, or texts, if this share of its values is
CONSTANT_ROWS, USUAL = 50, 0.5
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class KnownColumn:
    """What training saw of a column: its summary, how its blocks scattered, and whether one of them held a single value."""

    summary: ColumnSummary
    calibrated: Mapping[Signal, SignalCalibration] = field(default_factory=dict)
    may_stand: bool = False


def judge_column(feature: FeatureSchema, known: KnownColumn, now: ColumnSummary, *, alpha: float) -> Iterator[Finding]:
    """What is wrong with the values `now`, at the false-alarm rate `alpha` of each test."""
    then = known.summary
    yield from _nulls(feature, known, now, alpha)
    if not now.present:
        return
    if feature.role == "numeric":
        yield from _finite(feature, known, now, alpha)
        yield from _in_range(feature, then, now, alpha)
    elif then.categories is not None and now.categories is None:
        yield from _countable(feature, then.categories, now)
    elif now.categories is not None and then.categories is not None:
        yield from _form(feature, then.categories, now.categories, alpha)
        yield from _unseen(feature, known, then.categories, now.categories, alpha)
    if not known.may_stand:
        yield from _varies(feature, then, now)


def _nulls(feature: FeatureSchema, known: KnownColumn, now: ColumnSummary, alpha: float) -> Iterator[Finding]:
    then = known.summary
    rise = _Rise.of(then.nulls, then.n, now.nulls, now.n, known.calibrated.get("nulls"))
    if rise.p_value >= alpha or rise.size < NULLS_WARN:
        return
    was = f"{_share(then.nulls, then.n):.1%} in the training data"
    if not now.present:
        rule = "is a number" if feature.role == "numeric" else "is not empty"
        message = f"all {now.n:,} values are null or unreadable, {was}; mend the source or take it out of [features]"
        yield _found(feature.name, rule, "error", message)
        return
    message = f"{now.nulls:,} of {now.n:,} values ({now.nulls / now.n:.1%}) are null, {was}; mend the source"
    fails = rise.size >= NULLS_FAIL and rise.p_value_in_runs < alpha
    yield _found(feature.name, "has values", "error" if fails else "warning", message)


def _finite(feature: FeatureSchema, known: KnownColumn, now: ColumnSummary, alpha: float) -> Iterator[Finding]:
    then = known.summary
    if not now.has_numbers and not now.infinite:
        message = f"no value of {now.present:,} is a number, training saw numbers; mend the source"
        yield _found(feature.name, "is a number", "error", message)
    if now.infinite:
        rise = _Rise.of(then.infinite, then.n, now.infinite, now.n, known.calibrated.get("infinite"))
        severity = _severity_of_broken(rise, alpha)
        message = f"{now.infinite:,} of {now.n:,} values are infinite, none may be; mend the source"
        yield _found(feature.name, "is finite", severity, message)


def _in_range(feature: FeatureSchema, then: ColumnSummary, now: ColumnSummary, alpha: float) -> Iterator[Finding]:
    outside = _outside(feature, now)
    if outside:
        low, high = now.ends
        severity = _severity_of_broken(_Rise.of(_outside(feature, then), then.n, outside, now.n), alpha)
        message = (
            f"about {outside:,} of {now.n:,} values are outside the range of the spec, {_range(feature)}: found {low:g} to "
            f"{high:g}; mend the source or widen features.ranges"
        )
        yield _found(feature.name, "is in range", severity, message)


def _countable(feature: FeatureSchema, then: Mapping[str, int], now: ColumnSummary) -> Iterator[Finding]:
    """More categories in one window than a profile counts, where all of the training data had fewer: ids, or free text."""
    message = (
        f"the {now.present:,} values are of more categories than a profile counts, training saw {len(then):,}; mend what "
        "sends the rows, or take it out of [features]"
    )
    yield _found(feature.name, "can be counted", "error", message)


def _form(feature: FeatureSchema, then: Mapping[str, int], now: Mapping[str, int], alpha: float) -> Iterator[Finding]:
    """Categories that were numbers and now are words, or the other way round: somebody coded them anew."""
    total, n = sum(then.values()), sum(now.values())
    numbers_then, numbers_now = _numbers(then), _numbers(now)
    for was, is_, old, new in (
        ("numbers", "words", total - numbers_then, n - numbers_now),
        ("words", "numbers", numbers_then, numbers_now),
    ):
        if total and old / total <= 1 - PURE:
            rise = _Rise.of(old, total, new, n)
            if rise.p_value < alpha and rise.size >= FORM_FAIL:
                message = (
                    f"{new:,} of {n:,} values ({new / n:.1%}) are {is_} (most often {_most_common(now, is_)!r}), training saw "
                    f"{was}: the categories are coded anew; send them as before or train on the new code"
                )
                yield _found(feature.name, "keeps its type", "error", message)


def _unseen(
    feature: FeatureSchema, known: KnownColumn, then: Mapping[str, int], now: Mapping[str, int], alpha: float
) -> Iterator[Finding]:
    """Categories training never saw. New ones are life, which retraining learns; known ones spelt otherwise are an error.

    The share expected of unseen categories is that of those seen once (Good 1953).
    """
    unseen = {name: count for name, count in now.items() if name not in then}
    total, n, hits = sum(then.values()), sum(now.values()), sum(unseen.values())
    if not unseen:
        return
    spelt = {_plain(name) for name in then}
    respelt = sum(count for name, count in unseen.items() if _plain(name) in spelt)
    first = max(unseen, key=lambda name: unseen[name])
    if respelt / n >= RESPELT_FAIL and _Rise.of(0, total, respelt, n).p_value < alpha:
        message = (
            f"{respelt:,} of {n:,} values ({respelt / n:.1%}) are known categories in another spelling (most often {first!r}): "
            "case or blanks differ; send them as before"
        )
        yield _found(feature.name, "keeps its spelling", "error", message)
        return
    singles = sum(count == 1 for count in then.values())
    rise = _Rise.of(singles, total, hits, n, known.calibrated.get("unseen"))
    if rise.p_value_in_runs >= alpha or rise.size < UNSEEN_WARN:
        return
    message = (
        f"{hits:,} of {n:,} values ({hits / n:.1%}) are categories that training never saw (most often {first!r}); retrain "
        "when they are real, mend the source when they are not"
    )
    yield _found(feature.name, "is known", "warning", message)


def _varies(feature: FeatureSchema, then: ColumnSummary, now: ColumnSummary) -> Iterator[Finding]:
    """One value in the whole window that was not the usual one: chance gives it with less than 2**-50.

    Never an error: a day has one season. A usual value, such as "no holiday", may fill weeks and is nothing to tell.
    """
    value, mass = now.only_value, 0.0
    if now.n < CONSTANT_ROWS or now.nulls or value is None or not then.present or then.only_value is not None:
        return
    if then.categories is not None:
        mass = then.categories.get(str(value), 0) / then.present
    elif then.cdf is not None and not isinstance(value, str):
        below, upto = then.cdf(np.array([np.nextafter(value, -np.inf), value]))
        mass = float(upto - below)
    if mass < USUAL:
        message = (
            f"every one of {now.n:,} values is {value}, training saw it in {mass:.1%}; look whether its source is stuck"
        )
        yield _found(feature.name, "varies", "warning", message)


def shares_of(feature: FeatureSchema, then: ColumnSummary | None, now: ColumnSummary) -> dict[str, float]:
    """The shares of a column that are worth a chart, 0 to 1, by '<column>.<what>'."""
    shares = {"nulls": now.nulls / now.n}
    if feature.role == "numeric":
        shares["infinite"] = now.infinite / now.n
        if feature.low is not None or feature.high is not None:
            shares["outside"] = _outside(feature, now) / now.n
    elif now.categories and then is not None and then.categories is not None:
        unseen = sum(count for name, count in now.categories.items() if name not in then.categories)
        shares["unseen"] = unseen / sum(now.categories.values())
    return {f"{feature.name}.{what}": share for what, share in shares.items()}


@dataclass(frozen=True)
class _Rise:
    """How much a share rose, and the chance of that: if rows were independent, and if they come in runs as in the blocks.

    1 both if it is usual that a block of the training data rises as much.
    """

    size: float
    p_value: float
    p_value_in_runs: float

    @staticmethod
    def of(was: int, of: int, hits: int, n: int, calibrated: SignalCalibration | None = None) -> _Rise:
        """The rise from `was` of `of` in training to `hits` of `n`."""
        size, found = hits / n - _share(was, of), ShareRise(was, of, hits, n, "nulls")
        if calibrated is None:
            return _Rise(size, found.p_value(), found.p_value())
        if size <= (calibrated.floor if calibrated.usual is None else calibrated.usual):
            return _Rise(size, 1.0, 1.0)
        return _Rise(size, found.p_value(), found.p_value(calibrated.design_effect))


def _severity_of_broken(rise: _Rise, alpha: float) -> Severity:
    return "error" if rise.p_value_in_runs < alpha and rise.size >= BROKEN_FAIL else "warning"


def _outside(feature: FeatureSchema, column: ColumnSummary) -> int:
    """How many values lie outside the range of the spec; 0 is exact, more is as exact as the distribution function.

    Rows are float32, so are the ends: 0.7 as float32 lies below 0.7.
    """
    if not column.has_numbers or (feature.low is None and feature.high is None):
        return 0
    assert column.cdf is not None
    least, most = column.ends
    low = -np.inf if feature.low is None else float(np.float32(feature.low))
    high = np.inf if feature.high is None else float(np.float32(feature.high))
    if least >= low and most <= high:
        return 0
    below = column.cdf(np.array([np.nextafter(low, -np.inf)]))[0] if least < low else 0.0
    above = 1 - column.cdf(np.array([high]))[0] if most > high else 0.0
    return max(1, round(float(below + above) * (column.present - column.infinite)))


def _numbers(categories: Mapping[str, int]) -> int:
    return sum(count for name, count in categories.items() if _NUMBER.fullmatch(name))


def _most_common(categories: Mapping[str, int], form: str) -> str:
    of_form = [name for name in categories if bool(_NUMBER.fullmatch(name)) == (form == "numbers")]
    return max(of_form, key=lambda name: categories[name])


def _plain(category: str) -> str:
    return " ".join(category.split()).casefold()


def _range(feature: FeatureSchema) -> str:
    low = "-inf" if feature.low is None else f"{feature.low:g}"
    return f"[{low}, {'inf' if feature.high is None else f'{feature.high:g}'}]"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _found(column: str, rule: str, severity: Severity, message: str) -> Finding:
    return Finding(column=column, rule=rule, severity=severity, message=message)
