"""The gates: may this challenger replace the champion? Closed by default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import stats

from everloop.domain.metrics import LossSummary, score, summarize
from everloop.domain.spec import Gates
from everloop.domain.spec_values import Frozen

Verdict = Literal["pass", "fail", "undetermined"]
_WORST_FIRST: tuple[Verdict, ...] = ("fail", "undetermined", "pass")
_RESAMPLES = 5000


@dataclass(frozen=True)
class HoldoutScores:
    """Per-row losses of all contenders on the same holdout rows, each of shape (n,).

    `fresh` marks rows that the champion was not trained on; `slices` holds each row's value of every slice column.
    """

    challenger: np.ndarray
    baseline: np.ndarray
    champion: np.ndarray | None = None
    fresh: np.ndarray | None = None
    champion_version: str | None = None
    slices: dict[str, np.ndarray] = field(default_factory=dict)


class GateResult(Frozen):
    """What one gate says, why, and the numbers it looked at."""

    gate: str
    verdict: Verdict
    reason: str
    numbers: dict[str, float] = {}


class GateVerdict(Frozen):
    """The verdict over all gates; the worst one counts, and every one is reported."""

    verdict: Verdict
    results: tuple[GateResult, ...]
    champion_version: str | None
    challenger_loss: LossSummary

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of the gates that did not pass, or 'every gate passed'."""
        return tuple(r.reason for r in self.results if r.verdict != "pass") or ("every gate passed",)


def judge(scores: HoldoutScores, gates: Gates, *, seed: int = 0) -> GateVerdict:
    """The verdict over all gates for one challenger."""
    results = (
        meets_absolute_bar(scores, gates),
        beats_trivial_baseline(scores, gates),
        is_not_worse_than_champion(scores, gates, seed=seed),
        *regresses_on_no_slice(scores, gates, seed=seed),
    )
    return GateVerdict(
        verdict=worst(result.verdict for result in results),
        results=results,
        champion_version=scores.champion_version,
        challenger_loss=summarize(scores.challenger),
    )


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of `verdicts`: fail before undetermined before pass."""
    return min(verdicts, key=_WORST_FIRST.index)


def meets_absolute_bar(scores: HoldoutScores, gates: Gates) -> GateResult:
    """The challenger's metric is at most `worst_allowed`."""
    found = score(gates.metric, scores.challenger)
    passed = found <= gates.worst_allowed
    return GateResult(
        gate="absolute bar",
        verdict="pass" if passed else "fail",
        reason=f"{gates.metric} {found:.4g} is {'within' if passed else 'above'} the bar {gates.worst_allowed:.4g}",
        numbers={"challenger": found, "bar": gates.worst_allowed},
    )


def beats_trivial_baseline(scores: HoldoutScores, gates: Gates) -> GateResult:
    """The challenger does better than a model without features."""
    found, trivial = score(gates.metric, scores.challenger), score(gates.metric, scores.baseline)
    passed = found < trivial
    return GateResult(
        gate="trivial baseline",
        verdict="pass" if passed else "fail",
        reason=f"{gates.metric} {found:.4g} is {'better' if passed else 'no better'} than {trivial:.4g} without features",
        numbers={"challenger": found, "baseline": trivial},
    )


def is_not_worse_than_champion(scores: HoldoutScores, gates: Gates, *, seed: int = 0) -> GateResult:
    """The upper confidence bound of the mean paired loss difference is at most the margin, on rows fresh to both."""
    gate = "not worse than the champion"
    if scores.champion_version is None:
        return GateResult(gate=gate, verdict="pass", reason="there is no champion yet")
    if scores.champion is None or scores.fresh is None:
        reason = f"champion v{scores.champion_version} cannot be scored on this holdout: the columns it needs are not in the spec any more"
        return GateResult(gate=gate, verdict="undetermined", reason=reason)
    champion = f"champion v{scores.champion_version}"
    difference = (scores.challenger - scores.champion)[scores.fresh]
    if len(difference) < gates.min_holdout_rows:
        return GateResult(
            gate=gate,
            verdict="undetermined",
            reason=f"{len(difference)} holdout rows are fresh to {champion}, {gates.min_holdout_rows} are required",
            numbers={"fresh_rows": len(difference)},
        )
    upper = upper_bound_of_mean(difference, confidence=gates.confidence, seed=seed)
    passed = upper <= gates.non_inferiority_margin
    return GateResult(
        gate=gate,
        verdict="pass" if passed else "fail",
        reason=(
            f"mean loss differs by {difference.mean():+.4g} from {champion} on {len(difference)} fresh rows; "
            f"with {gates.confidence:.0%} confidence by at most {upper:+.4g}, allowed {gates.non_inferiority_margin:+.4g}"
        ),
        numbers={
            "fresh_rows": len(difference),
            "challenger": float(scores.challenger[scores.fresh].mean()),
            "champion": float(scores.champion[scores.fresh].mean()),
            "difference": float(difference.mean()),
            "upper_bound": upper,
            "margin": gates.non_inferiority_margin,
        },
    )


def regresses_on_no_slice(scores: HoldoutScores, gates: Gates, *, seed: int = 0) -> list[GateResult]:
    """For each slice column: no value's loss is confidently above the champion's by more than the slice margin."""
    if scores.champion is None or scores.fresh is None:
        return []
    return [_slice_gate(column, scores, gates, seed) for column in scores.slices]


def upper_bound_of_mean(values: np.ndarray, *, confidence: float, seed: int) -> float:
    """The one-sided bootstrap upper bound of the mean of `values` (percentile method, Efron & Tibshirani 1993, ch. 13)."""
    if np.ptp(values) == 0:
        return float(values[0])
    interval = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        alternative="less",
        n_resamples=_RESAMPLES,
        method="percentile",
        batch=500,
        random_state=np.random.default_rng(seed),
    )
    return float(interval.confidence_interval.high)


def _slice_gate(column: str, scores: HoldoutScores, gates: Gates, seed: int) -> GateResult:
    assert scores.champion is not None
    regressed, judged = [], 0
    numbers: dict[str, float] = {}
    values = scores.slices[column]
    for value in np.unique(values):
        rows = scores.fresh & (values == value)
        if rows.sum() < gates.min_slice_rows:
            continue
        judged += 1
        challenger, champion = scores.challenger[rows], scores.champion[rows]
        allowed = gates.slice_margin * float(champion.mean())
        lower = -upper_bound_of_mean(champion - challenger, confidence=gates.confidence, seed=seed)
        numbers[f"{value}"] = float(challenger.mean() - champion.mean())
        if lower > allowed:
            regressed.append(f"{column}={value}: {champion.mean():.4g} → {challenger.mean():.4g} on {rows.sum()} rows")
    reason = "; ".join(regressed) if regressed else f"no slice of {column} regresses ({judged} judged)"
    return GateResult(gate=f"slice {column}", verdict="fail" if regressed else "pass", reason=reason, numbers=numbers)
