"""The data quality of a window: do its rows look like data, whatever they say about the world?

An error means that training on these rows would be training on broken data: it blocks. A warning is for a person to read.
Tests are corrected by Bonferroni over all of a window and share 0.08 of the false alarms that the spec allows; those of one
column are in everloop/domain/column_quality.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from everloop.domain.calibration import Calibration
from everloop.domain.checks import Finding
from everloop.domain.column_quality import TESTS, KnownColumn, Severity, judge_column, shares_of
from everloop.domain.schema import RowSchema
from everloop.domain.spec import PREDICTION
from everloop.domain.spec_values import Frozen
from everloop.domain.summaries import ColumnSummary, ProfileSummary

QUALITY_SHARE = 0.08  # of the false alarms that the spec allows
DUPLICATES_WARN, DUPLICATES_FAIL = 0.01, 0.2


class QualityReport(Frozen):
    """What the rows of a window look like. `shares` holds the numbers, 0 to 1, by '<column>.<what>'."""

    verdict: Literal["ok", "warning", "fail", "undetermined"]
    reason: str
    rows: int
    findings: tuple[Finding, ...] = ()
    shares: dict[str, float] = {}

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that block retraining."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def judge_quality(
    reference: ProfileSummary,
    window: ProfileSummary,
    schema: RowSchema,
    *,
    false_alarms: float = 0.01,
    calibration: Calibration | None = None,
    duplicates: int = 0,
    newest: datetime | None = None,
    at: datetime | None = None,
    max_age: timedelta | None = None,
) -> QualityReport:
    """What is wrong with the rows of `window`, given the rows that training saw.

    `calibration` is that of the reference: nulls, infinities and unseen categories that its blocks had are no news, nor is a
    column that held one value for a block. `duplicates` are rows whose key stood before in the window. `newest` is the event
    time of the newest row, `at` the moment of judging; times without a zone are UTC. An empty window is undetermined.
    """
    if not window.rows:
        return QualityReport(verdict="undetermined", reason="the window has no rows; there is nothing to judge", rows=0)
    signals, standing = (calibration.by_signal(), calibration.standing) if calibration else ({}, ())
    alpha = QUALITY_SHARE * false_alarms / (TESTS * max(len(schema.features), 1))
    findings = [
        *_names(window, schema),
        *_repeats(window.rows, duplicates, schema),
        *_freshness(newest, at, max_age, schema),
    ]
    shares = {"rows.duplicates": duplicates / window.rows}
    for feature in schema.features:
        then, now = reference.columns.get(feature.name), window.columns.get(feature.name)
        if now is not None and now.n:
            known = KnownColumn(
                then or ColumnSummary(n=0, nulls=0),
                {signal: one for (name, signal), one in signals.items() if name == feature.name},
                may_stand=feature.name in standing,
            )
            findings += judge_column(feature, known, now, alpha=alpha)
            shares |= shares_of(feature, then, now)
    errors = sum(finding.severity == "error" for finding in findings)
    return QualityReport(
        verdict="fail" if errors else "warning" if findings else "ok",
        reason=f"{errors} errors and {len(findings) - errors} warnings in {window.rows:,} rows of {len(schema.features)} features",
        rows=window.rows,
        findings=tuple(findings),
        shares=shares,
    )


def _names(window: ProfileSummary, schema: RowSchema) -> Iterator[Finding]:
    for name in schema.names:
        if name not in window.columns:
            message = "missing from the window, the model needs it; mend what sends the rows"
            yield Finding(column=name, rule="is there", severity="error", message=message)
    for name in window.columns:
        if name not in schema.names and name != PREDICTION and not name.startswith("time."):
            message = "new: the model was trained without it; add it to [features] or stop sending it"
            yield Finding(column=name, rule="is known", severity="warning", message=message)


def _repeats(rows: int, duplicates: int, schema: RowSchema) -> Iterator[Finding]:
    share = duplicates / rows
    if share > DUPLICATES_WARN:
        severity: Severity = "error" if share > DUPLICATES_FAIL else "warning"
        message = (
            f"{duplicates:,} of {rows:,} rows ({share:.1%}) repeat a key of the same window, at most {DUPLICATES_WARN:.0%} are "
            "expected; look for a client that sends rows again"
        )
        yield Finding(column=schema.key or "rows", rule="is unique", severity=severity, message=message)


def _freshness(
    newest: datetime | None, at: datetime | None, max_age: timedelta | None, schema: RowSchema
) -> Iterator[Finding]:
    if newest is None or at is None or max_age is None:
        return
    age = _utc(at) - _utc(newest)
    if age > max_age:
        message = (
            f"the newest row is of {newest:%Y-%m-%d %H:%M}, {age} before {at:%Y-%m-%d %H:%M}; at most {max_age} is allowed "
            "(monitor.max_age); look at what feeds the model"
        )
        yield Finding(column=schema.time or "rows", rule="is fresh", severity="error", message=message)


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
