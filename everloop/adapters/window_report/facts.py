"""What was looked at, one line each; and the decision as Markdown for Prefect's UI."""

from __future__ import annotations

from dataclasses import dataclass

from everloop.adapters.window_report.words import (
    SIGNALS,
    cell,
    interval,
    number,
    p_value,
    span,
    to_the_minute,
    verdict_of,
)
from everloop.domain.decision import RetrainingDecision

_STYLES = {
    **dict.fromkeys(("ok", "no drift"), "good"),
    **dict.fromkeys(("degraded", "decaying", "drift", "fail", "warning", "irregular"), "bad"),
}


@dataclass(frozen=True)
class Fact:
    """One thing that was looked at; `style` is 'good', 'bad', 'unknown' or 'plain'."""

    what: str
    verdict: str
    style: str
    text: str


def decision_markdown(decision: RetrainingDecision, *, report_link: str | None) -> str:
    """The decision for Prefect's UI: the verdict first, then a table of what was looked at, then the columns that drifted."""
    verdict, window = verdict_of(decision), decision.window
    lines = [
        f"# {cell(verdict.title)}",
        f"{cell(verdict.why)}. {cell(verdict.next)}",
        "",
        *([f"**[The window's report]({report_link})** shows it in pictures.", ""] if report_link else []),
        f"Window `{window.id}`, {to_the_minute(window.start)} to {to_the_minute(window.end)}, {window.rows:,} rows, "
        f"champion v{cell(decision.version)}: {cell('; '.join(verdict.codes))}.",
        "",
        "| looked at | verdict | what was found |",
        "|---|---|---|",
        *(f"| {fact.what} | {fact.verdict} | {cell(fact.text)} |" for fact in facts_of(decision, "loss")),
    ]
    drifted = [test for test in decision.drift.tests if test.is_drift]
    if drifted:
        lines += ["", "| drifted | what | effect | counts from | p | statistic |", "|---|---|---:|---:|---:|---|"]
        lines += [
            f"| {cell(test.column)} | {SIGNALS[test.signal]} | {test.effect:.3f} | {test.floor:.3f} | {p_value(test.p_value)} "
            f"| {test.statistic} |"
            for test in sorted(drifted, key=lambda test: -test.effect)
        ]
    return "\n".join(lines)


def facts_of(decision: RetrainingDecision, metric: str) -> list[Fact]:
    """Everything that was looked at, and what was not, in the order of weight."""
    performance, drift, labels = decision.performance, decision.drift, _labels(decision)
    estimate, ranking, growth, usage = decision.estimate, decision.ranking, decision.growth, decision.usage
    within = (
        ""
        if performance.low is None
        else f" 95 % interval of the {metric}: {interval(performance.low, performance.high)}."
    )
    score = "" if drift.score is None else f" Weighted by importance, the features moved by {drift.score:.3f} of 1."
    found = [
        _fact("performance", performance.verdict, f"{performance.reason}.{within}"),
        Fact("labels", f"{performance.coverage:.0%}", "plain", labels),
        _fact("drift", drift.verdict, f"{drift.reason}.{score}"),
    ]
    for what, report in (
        ("slow decay", decision.decay),
        ("data quality", decision.quality),
        ("dependencies", decision.dependencies),
        ("usage", usage),
    ):
        found.append(_not_looked_at(what) if report is None else _fact(what, report.verdict, report.reason))
    if decision.slices:
        bad = [
            one.name for one in decision.slices if one.performance.verdict == "degraded" or one.drift.verdict == "drift"
        ]
        verdicts = [{one.performance.verdict, one.drift.verdict} for one in decision.slices]
        judged = sum(verdict != {"undetermined"} for verdict in verdicts)
        text = f"{len(verdicts)} watched, {judged} with enough rows; {', '.join(bad) or 'none'} degraded or drifted"
        verdict, style = ("look", "bad") if bad else ("ok", "good") if judged else ("undetermined", "unknown")
        found.append(Fact("slices", verdict, style, text))
    if estimate is not None:
        value = (
            ""
            if estimate.estimate is None
            else f"{number(estimate.estimate)} ({interval(estimate.low, estimate.high)}). "
        )
        found.append(Fact("estimate without labels", estimate.verdict, "plain", f"{value}{estimate.note}"))
    if ranking is not None:
        value = "" if ranking.auc is None else f"ROC AUC {ranking.auc:.3f} ({interval(ranking.low, ranking.high)}). "
        found.append(Fact("ranking", ranking.verdict, "plain", f"{value}{ranking.reason}"))
    if growth is not None:
        text = f"{growth.labelled_rows:,} labelled rows, {growth.at_last_training:,} at the last training"
        found.append(Fact("growth", f"{growth.share:+.0%}", "plain", text))
    if decision.age_seconds is not None:
        text = "from a row's event to its prediction (median)"
        found.append(Fact("age", span(decision.age_seconds), "plain", text))
    if decision.alerts:
        text = "; ".join(alert.sentence for alert in decision.alerts)
        found.append(Fact("alerts so far", f"{len(decision.alerts)} sent", "bad", text))
    return found


def _fact(what: str, verdict: str, text: str) -> Fact:
    return Fact(what, verdict, _STYLES.get(verdict, "unknown"), text)


def _not_looked_at(what: str) -> Fact:
    return Fact(what, "not looked at", "unknown", "")


def _labels(decision: RetrainingDecision) -> str:
    performance = decision.performance
    lag = "" if performance.lag_seconds is None else f", {span(performance.lag_seconds)} after the prediction (median)"
    return f"{performance.labelled:,} of {performance.rows:,} have arrived{lag}"
