"""What a person reads about one window: a self-contained HTML page, and the shorter Markdown of the Prefect artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

from markupsafe import Markup

from everloop.adapters.window_report.columns import plot_column
from everloop.adapters.window_report.facts import facts_of
from everloop.adapters.window_report.timeline import WindowPoint, plot_over_time
from everloop.adapters.window_report.words import (
    SIGNALS,
    interval,
    number,
    p_value,
    share,
    span,
    to_the_minute,
    verdict_of,
    with_code,
)
from everloop.domain.decision import RetrainingDecision
from everloop.domain.drift import DriftTest
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.spec import PREDICTION
from everloop.domain.summaries import ColumnSummary, ProfileSummary

SHOWN_WINDOWS, MOST_CARDS, LEAST_CARDS = 30, 12, 6


_TEMPLATE = Path(__file__).with_name("page.html.jinja")


@dataclass(frozen=True)
class Card:
    """One column: its picture and what its tests say, in words."""

    name: str
    importance: float | None
    signals: tuple[str, ...]
    sentences: tuple[str, ...]
    picture: Markup | None


def write_window_report(
    folder: Path,
    decision: RetrainingDecision,
    *,
    earlier: Sequence[RetrainingDecision],
    reference: ProfileSummary,
    window: ProfileSummary,
    importance: Mapping[str, float],
    links: Mapping[str, str],
    policy: MonitorSpec | None = None,
    metric: str = "loss",
) -> Path:
    """The page about the decision's window, '<window id>.html' in `folder`; it loads nothing from anywhere.

    `earlier` are the decisions before it, oldest first; `importance` is each feature's share in what the model knows; `links`
    are addresses by the text that leads to them; `policy` gives the margin that is drawn; `metric` is its name in words.
    """
    from jinja2 import Environment, StrictUndefined

    recent = [*earlier, decision][-SHOWN_WINDOWS:]
    cards = _cards(decision, reference, window, importance)
    shown = {card.name for card in cards}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number, share=share, p=p_value, time=to_the_minute, span=span, interval=interval)
    environment.filters.update(verdict=verdict_of, with_code=with_code)
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        decision=decision,
        verdict=verdict_of(decision),
        facts=facts_of(decision, metric),
        cards=cards,
        more_drifted=[name for name in decision.drift.drifted if name not in shown],
        rest=[test for test in decision.drift.tests if test.column not in shown],
        importance=importance,
        timeline=plot_over_time([_point(found) for found in recent], metric=metric, limit=_limit(policy, metric)),
        recent=recent[::-1],
        versions=list(_versions(recent)),
        findings=[*(decision.quality.findings if decision.quality else ()), *_dependency_findings(decision)],
        links={text: address for text, address in links.items() if urlsplit(address).scheme in ("", "http", "https")},
        margin=policy.max_loss_increase if policy else None,
        metric=metric,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{decision.window.id}.html"
    path.write_text(page, encoding="utf-8")
    return path


def _cards(
    decision: RetrainingDecision, reference: ProfileSummary, window: ProfileSummary, importance: Mapping[str, float]
) -> list[Card]:
    """The columns that matter: what drifted, strongest first; then what the model predicts; then importance times effect."""
    tests: dict[str, list[DriftTest]] = {name: [] for name in reference.columns if name in window.columns}
    for test in decision.drift.tests:
        tests.setdefault(test.column, []).append(test)
    drifted = decision.drift.drifted

    def weight(name: str) -> tuple[bool, float, float]:
        effect = max((test.effect for test in tests[name]), default=0.0)
        return name != PREDICTION, -importance.get(name, 0.0) * effect, -importance.get(name, 0.0)

    others = sorted((name for name in tests if name not in drifted), key=weight)
    shown = [*drifted[:MOST_CARDS], *others[: max(0, LEAST_CARDS - len(drifted))]]
    return [
        _card(
            name, tests[name], reference.columns.get(name), window.columns.get(name), importance, decision.drift.alpha
        )
        for name in shown
    ]


def _card(
    name: str,
    tests: Sequence[DriftTest],
    reference: ColumnSummary | None,
    window: ColumnSummary | None,
    importance: Mapping[str, float],
    alpha: float,
) -> Card:
    worth_saying = [test for test in tests if test.is_drift or test.signal == "distribution"]
    return Card(
        name=name,
        importance=importance.get(name),
        signals=tuple(SIGNALS[test.signal] for test in tests if test.is_drift),
        sentences=(
            *(_sentence(test, alpha, reference, window) for test in worth_saying),
            *_medians(reference, window),
            *([] if tests else ["not tested: see the reason of the drift verdict"]),
        ),
        picture=plot_column(name, reference, window),
    )


def _sentence(test: DriftTest, alpha: float, reference: ColumnSummary | None, window: ColumnSummary | None) -> str:
    """What one test says: effect against floor, p against its bar, and what the rows count for."""
    if test.signal == "nulls" and reference is not None and window is not None and reference.n and window.n:
        before, now = reference.nulls / reference.n, window.nulls / window.n
        said = f"missing values: {share(before)} in the training data, {share(now)} here; a rise of {test.floor:.1%} counts"
    elif test.signal == "unseen":
        said = f"never seen in training: {share(test.effect)} more than expected{_newcomers(reference, window)}"
        said += f"; {test.floor:.1%} counts"
    else:
        said = f"distance {test.effect:.3f}, where {test.floor:.3f} counts ({test.statistic})"
    said += f"; by chance with p = {p_value(test.p_value)}, {'below' if test.p_value < alpha else 'not below'} {p_value(alpha)}"
    if test.design_effect >= 1.05:
        said += f"; its rows depend on each other: {test.design_effect:.1f} of them count for one"
    return said


def _newcomers(reference: ColumnSummary | None, window: ColumnSummary | None) -> str:
    if reference is None or window is None or reference.categories is None or window.categories is None:
        return ""
    new = [name for name in window.categories if name not in reference.categories]
    new.sort(key=lambda name: -(window.categories or {})[name])
    return f" ({', '.join(new[:5])}{', …' if len(new) > 5 else ''})" if new else ""


def _medians(reference: ColumnSummary | None, window: ColumnSummary | None) -> Iterator[str]:
    if reference is not None and window is not None:
        before, now = reference.quantile(0.5), window.quantile(0.5)
        if before is not None and now is not None:
            yield f"median {number(before)} in the training data, {number(now)} here"


def _point(decision: RetrainingDecision) -> WindowPoint:
    performance, estimate = decision.performance, decision.estimate
    metric = "not scored" if performance.metric is None else number(performance.metric)
    return WindowPoint(
        label=to_the_minute(decision.window.end)[:10],
        version=decision.version,
        action=decision.action,
        title=f"{to_the_minute(decision.window.end)}, v{decision.version}: {metric}; {decision.action}: "
        f"{'; '.join(verdict_of(decision).codes)}",
        metric=performance.metric,
        low=performance.low,
        high=performance.high,
        baseline=estimate.baseline if performance.baseline is None and estimate else performance.baseline,
        estimate=estimate.estimate if estimate else None,
        coverage=performance.coverage,
        is_degraded=performance.verdict == "degraded",
    )


def _limit(policy: MonitorSpec | None, metric: str) -> float | None:
    """By which factor the metric may exceed its baseline: the margin is one of the mean loss, and RMSE is its root."""
    if policy is None:
        return None
    factor = 1 + policy.max_loss_increase
    return float(factor**0.5 if metric == "rmse" else factor)


@dataclass(frozen=True)
class _VersionRow:
    version: str
    first: str
    last: str
    windows: int
    baseline: float | None
    mean: float | None


def _versions(recent: Sequence[RetrainingDecision]) -> Iterator[_VersionRow]:
    """One row each time that a version served, newest first."""
    runs = [list(run) for _, run in groupby(recent, key=lambda decision: decision.version)]
    for run in reversed(runs):
        scored = [found.performance.metric for found in run if found.performance.metric is not None]
        baselines = [found.performance.baseline for found in run if found.performance.baseline is not None]
        yield _VersionRow(
            version=run[0].version,
            first=run[0].window.start,
            last=run[-1].window.end,
            windows=len(run),
            baseline=baselines[-1] if baselines else None,
            mean=sum(scored) / len(scored) if scored else None,
        )


def _dependency_findings(decision: RetrainingDecision) -> Sequence[object]:
    return decision.dependencies.findings if decision.dependencies else ()
