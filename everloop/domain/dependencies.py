"""What a live model depends on and does not hold itself: its source, its environment, and features that mean the same twice.

A failing dependency blocks retraining: a source that is gone, stale, or shaped otherwise cannot be trained on. A warning is for
a person to read. What could not be looked at is listed as unknown, never passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import pandas as pd

from everloop.domain.checks import Finding
from everloop.domain.schema import FeatureSchema, RowSchema, canonical_category
from everloop.domain.spec_values import Frozen

MIN_COMMON_KEYS = 20
SKEW_WARN, SKEW_FAIL = 0.01, 0.2  # share of rows whose served value is not the source's
_RELATIVE, _ABSOLUTE = 1e-6, 1e-12  # a float32 is within 6e-8 of the number it stands for
ColumnType = Literal["number", "integer", "text", "boolean", "time", "unknown"]


class SourceState(Frozen):
    """What a look at the source found; `newest` is the ISO time (UTC) of its newest row, `labelled` counts rows with a target."""

    reachable: bool
    reason: str
    rows: int | None = None
    labelled: int | None = None
    newest: str | None = None
    columns: dict[str, ColumnType] = {}


class ColumnSkew(Frozen):
    """How often one feature was served with another value than the source holds for the same key."""

    column: str
    compared: int
    differing: int
    share: float
    example: str | None = None


class DependencyReport(Frozen):
    """The verdict over all dependencies that could be looked at; `unknown` says which could not, a sentence each."""

    verdict: Literal["ok", "warning", "fail"]
    reason: str
    findings: tuple[Finding, ...]
    unknown: tuple[str, ...] = ()
    source: SourceState | None = None
    skew: tuple[ColumnSkew, ...] = ()


def judge_dependencies(
    *,
    source: SourceState,
    at: datetime,
    max_age: timedelta | None = None,
    trained_columns: Mapping[str, str] | None = None,
    training: Mapping[str, str] | None = None,
    serving: Mapping[str, str] | None = None,
    skew: Sequence[ColumnSkew] | None = None,
) -> DependencyReport:
    """What has changed around the model since it was trained.

    `trained_columns` are the source's columns and types as training found them (`SourceState.columns` of then); `training` and
    `serving` are the environments as name and version or digest; `skew` is what `find_skew` found, empty if too few keys were
    common. None: not looked at.
    """
    findings = [
        *_source(source, at, max_age),
        *_columns(source, trained_columns),
        *_environments(training or {}, serving or {}),
        *_skews(skew or ()),
    ]
    errors = sum(finding.severity == "error" for finding in findings)
    return DependencyReport(
        verdict="fail" if errors else "warning" if findings else "ok",
        reason=_reason(findings, errors),
        findings=tuple(findings),
        unknown=tuple(_unknown(source, max_age, trained_columns, training, serving, skew)),
        source=source,
        skew=tuple(skew or ()),
    )


def find_skew(captured_features: pd.DataFrame, source_rows: pd.DataFrame, schema: RowSchema) -> tuple[ColumnSkew, ...]:
    """Of every feature, how many captured rows hold another value than the source has for their key, most first.

    Both frames carry the key in the column `schema.key` and the features under their own names; of a repeated key the last
    row counts. Numbers are equal within float32 precision, categories if their canonical texts are, and nothing equals nothing.
    Empty if fewer than twenty keys are common or the model has no key. A column that the source lacks is left out.
    """
    if schema.key is None:
        return ()
    served, stored = _by_key(captured_features, schema.key), _by_key(source_rows, schema.key)
    keys = served.index.intersection(stored.index)
    if len(keys) < MIN_COMMON_KEYS:
        return ()
    served, stored = served.loc[keys], stored.loc[keys]
    both = [feature for feature in schema.features if feature.name in served and feature.name in stored]
    found = (_compare(feature, served[feature.name], stored[feature.name]) for feature in both)
    return tuple(sorted(found, key=lambda column: -column.share))


def _by_key(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    named = frame[frame[key].notna()]
    named = named.set_axis([canonical_category(value) for value in named[key]], axis=0)
    return named[~named.index.duplicated(keep="last")]


def _compare(feature: FeatureSchema, served: pd.Series, stored: pd.Series) -> ColumnSkew:
    if feature.role == "numeric":
        left, right = (pd.to_numeric(side, errors="coerce").to_numpy(dtype=float) for side in (served, stored))
        same = np.isclose(left, right, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
    else:
        texts = [np.array([canonical_category(value) for value in side], dtype=object) for side in (served, stored)]
        same = texts[0] == texts[1]
    differing = np.flatnonzero(~same)
    example = None
    if len(differing):
        at = differing[0]
        example = f"key {served.index[at]}: served {served.iloc[at]!s}, the source says {stored.iloc[at]!s}"
    share = len(differing) / len(same)
    return ColumnSkew(column=feature.name, compared=len(same), differing=len(differing), share=share, example=example)


def _source(source: SourceState, at: datetime, max_age: timedelta | None) -> Iterator[Finding]:
    if not source.reachable:
        yield _found("source", "is reachable", "error", source.reason)
        return
    if source.rows == 0:
        yield _found("source", "has rows", "error", "it holds 0 rows; look at what fills it or at data.query")
    if source.rows and source.labelled == 0:
        message = f"none of its {source.rows:,} rows has a label; bring labels or correct target"
        yield _found("source", "has labels", "error", message)
    if max_age is not None and source.newest is not None:
        age = _utc(at) - _utc(datetime.fromisoformat(source.newest))
        if age > max_age:
            message = (
                f"its newest row is of {source.newest}, {age} ago; at most {max_age} is allowed (monitor.max_age); "
                "look at what fills it"
            )
            yield _found("source", "is fresh", "error", message)


def _columns(source: SourceState, trained: Mapping[str, str] | None) -> Iterator[Finding]:
    """What became of the source's columns; a whole number that became a number is the same column with a gap."""
    if not source.reachable or not trained:
        return
    for name, was in trained.items():
        now = source.columns.get(name)
        if now is None:
            message = f"was {was} in the source at training and is gone; bring it back or train without it"
            yield _found(name, "is in the source", "error", message)
        elif now != was and "unknown" not in (now, was) and {now, was} != {"number", "integer"}:
            message = f"was {was} in the source at training and is {now} now; mend the source or train anew"
            yield _found(name, "keeps its type", "error", message)
    new = [name for name in source.columns if name not in trained]
    if new:
        message = f"{', '.join(new)} came after training; the model does not see it: a retraining may"
        yield _found("source", "keeps its columns", "warning", message)


def _environments(training: Mapping[str, str], serving: Mapping[str, str]) -> Iterator[Finding]:
    for name, trained in training.items():
        served = serving.get(name)
        if served is not None and served != trained:
            message = f"{trained} trained the model and {served} serves it; release it anew, or pin {name}"
            yield _found(name, "is the same in training and serving", "warning", message)


def _skews(skew: Sequence[ColumnSkew]) -> Iterator[Finding]:
    for column in skew:
        if column.share >= SKEW_WARN:
            message = (
                f"served with another value than the source holds in {column.differing:,} of {column.compared:,} rows "
                f"({column.share:.1%}; {column.example}); compute it in one place"
            )
            severity: Literal["error", "warning"] = "error" if column.share >= SKEW_FAIL else "warning"
            yield _found(column.column, "is the same in training and serving", severity, message)


def _reason(findings: Sequence[Finding], errors: int) -> str:
    if not findings:
        return "nothing that could be looked at has changed"
    worst = next((finding for finding in findings if finding.severity == "error"), findings[0])
    return f"{errors} errors and {len(findings) - errors} warnings, first of all {worst.column}: {worst.message}"


def _unknown(
    source: SourceState,
    max_age: timedelta | None,
    trained: Mapping[str, str] | None,
    training: Mapping[str, str] | None,
    serving: Mapping[str, str] | None,
    skew: Sequence[ColumnSkew] | None,
) -> Iterator[str]:
    if source.reachable and max_age is not None and source.newest is None:
        yield "the age of the source: the time of its newest row cannot be read"
    if not trained:
        yield "the source's columns: those of the training were not recorded"
    elif not source.reachable:
        yield "the source's columns: it cannot be reached"
    missing = sorted(set(training or {}) - set(serving or {}))
    if not training or not serving:
        yield "the environment: that of training or of serving is not known"
    elif missing:
        yield f"the environment: serving does not say its {', '.join(missing)}"
    if not skew:
        why = "it was not looked for" if skew is None else f"fewer than {MIN_COMMON_KEYS} served keys are in the source"
        yield f"training-serving skew: {why}"


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _found(column: str, rule: str, severity: Literal["error", "warning"], message: str) -> Finding:
    return Finding(column=column, rule=rule, severity=severity, message=message)
