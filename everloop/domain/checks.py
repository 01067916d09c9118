"""The data check: is this snapshot what the spec says it is? If not, nothing is trained on it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from everloop.domain.spec import ModelSpec
from everloop.domain.spec_values import Frozen


class Finding(Frozen):
    """One thing the check saw, in one sentence."""

    column: str
    rule: str
    severity: Literal["error", "warning"]
    message: str


class CheckReport(Frozen):
    """The verdict over a snapshot, with every finding."""

    rows: int
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that block training."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def verdict(self) -> Literal["pass", "fail"]:
        """'fail' if any finding is an error."""
        return "fail" if self.errors else "pass"


def check_rows(frame: pd.DataFrame, spec: ModelSpec) -> CheckReport:
    """What `frame` (one row a labelled example) shows against `spec`: size, target, nulls, ranges, constants."""
    findings = [*_size(frame, spec), *_target(frame, spec)]
    for name in spec.features.names:
        findings += _feature(frame[name], spec)
    return CheckReport(rows=len(frame), findings=tuple(findings))


def _size(frame: pd.DataFrame, spec: ModelSpec) -> list[Finding]:
    needed = 2 * spec.gates.holdout_rows
    if len(frame) >= needed:
        return []
    message = f"{len(frame):,} rows, at least {needed:,} are required (twice gates.holdout_rows); bring more data"
    return [Finding(column=spec.target, rule="size", severity="error", message=message)]


def _target(frame: pd.DataFrame, spec: ModelSpec) -> list[Finding]:
    target = frame[spec.target]

    def error(rule: str, message: str) -> Finding:
        return Finding(column=spec.target, rule=rule, severity="error", message=message)

    if spec.kind == "regression":
        numbers = pd.to_numeric(target, errors="coerce").to_numpy(dtype=float)
        wrong = int((~np.isfinite(numbers)).sum())
        if wrong:
            return [
                error(
                    "target is a number", f"{wrong:,} of {len(target):,} targets are no finite number; clean the source"
                )
            ]
        if len(target) and float(np.std(numbers)) == 0:
            return [error("target varies", f"every target is {numbers[0]:g}; there is nothing to learn")]
        return []
    classes = target.nunique()
    if spec.kind == "binary" and classes != 2:
        return [error("two classes", f"the target has {classes} classes, a binary model needs 2; clean it or set kind")]
    if classes < 2:
        return [error("two classes", f"the target has {classes} class, at least 2 are required")]
    return []


def _feature(column: pd.Series, spec: ModelSpec) -> list[Finding]:
    name = str(column.name)
    findings = []

    def found(rule: str, severity: Literal["error", "warning"], message: str) -> None:
        findings.append(Finding(column=name, rule=rule, severity=severity, message=message))

    nulls = int(column.isna().sum())
    if nulls == len(column) and len(column):
        found(
            "not empty", "error", f"all {nulls:,} values are null; mend the source or take {name!r} out of [features]"
        )
        return findings
    if column.nunique(dropna=False) == 1 and len(column):
        found("varies", "warning", f"every value is {column.iloc[0]!r}; the model cannot use it yet")
    if name in spec.features.numeric:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
        text = int(np.isnan(numbers).sum()) - nulls
        infinite = int(np.isinf(numbers).sum())
        if text > 0:
            found(
                "is a number", "error", f"{text:,} values are no numbers; clean the source or make {name!r} categorical"
            )
        if infinite:
            found("is finite", "error", f"{infinite:,} values are infinite; clean the source")
        if name in spec.features.ranges:
            low, high = spec.features.ranges[name]
            outside = int(((numbers < low) | (numbers > high)).sum())
            if outside:
                found(
                    "in range",
                    "error",
                    f"{outside:,} values are outside [{low:g}, {high:g}]; clean the source or widen features.ranges",
                )
    elif column.nunique() > len(column) / 2 and len(column) > 100:
        found("repeats", "warning", f"{column.nunique():,} categories in {len(column):,} rows; it may be an identifier")
    return findings
