"""What a replay tells: tables on the terminal, replay.json for machines, replay.png and replay.html for people."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from everloop.domain.replay import ReplayReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NEVER, _ALWAYS, _RECENT = "#c8553d", "#8a8a8a", "#c2a878"
_POLICIES = ("#0b6e99", "#5b8c3a", "#7a4f9a", "#b8860b", "#2f4f4f")


def strategy_rows(report: ReplayReport) -> list[dict[str, str]]:
    """One row a strategy: its metric, what of the possible gain it reached, and what it cost."""
    rows = [
        _row(report, "never", "never retrain", report.metric_never, 0, None),
        _row(report, "always_all", "every window, all history", report.metric_always_all, report.retrains_always, None),
        _row(
            report,
            "always_recent",
            f"every window, newest {report.recent_rows:,} rows",
            report.metric_always_recent,
            report.retrains_always,
            None,
        ),
    ]
    rows += [
        _row(report, result.name, f"policy {result.name}", result.metric, result.retrains, result.rejected)
        for result in report.policies
    ]
    return rows


def _row(
    report: ReplayReport, key: str, title: str, metric: float, retrains: int, rejected: int | None
) -> dict[str, str]:
    gain = report.metric_never - min(report.metric_always_all, report.metric_always_recent)
    degraded = report.windows_degraded.get(key)
    return {
        "strategy": title,
        report.metric: f"{metric:.4g}",
        "gain": f"{(report.metric_never - metric) / gain:.0%}" if gain > 0 else "–",
        "retrains": f"{retrains}",
        "of always": f"{retrains / report.retrains_always:.0%}" if report.retrains_always else "–",
        "rejected": "–" if rejected is None else f"{rejected}",
        "windows degraded": "–" if degraded is None else f"{degraded} of {len(report.windows)}",
        "rows trained": f"{report.rows_trained[key]:,}",
        "seconds trained": f"{report.seconds_trained[key]:.1f}",
    }


def verdict(report: ReplayReport) -> str:
    """The replay in one sentence."""
    best = min(report.metric_always_all, report.metric_always_recent)
    if report.gain_share is None:
        return (
            f"Retraining would have gained nothing here: {report.metric} {report.metric_never:.4g} never retrained, {best:.4g} "
            f"with the better of both ways to retrain every window; policy {report.policy} came to {report.metric_policy:.4g}."
        )
    share = "" if report.retrain_share is None else f" ({report.retrain_share:.0%})"
    return (
        f"Policy {report.policy} reaches {report.gain_share:.0%} of what retraining after every window gains "
        f"({report.metric} {report.metric_never:.4g} never, {best:.4g} always, {report.metric_policy:.4g} with the policy), with "
        f"{report.retrains_policy} of {report.retrains_always} retrainings{share}."
    )


def alarm_lines(report: ReplayReport) -> list[str]:
    """One sentence a policy about false and missed alarms, where change points were given."""
    return [
        f"policy {result.name}: {found.alarms} windows with an alarm, {found.false_alarms} of them false, {found.missed} of "
        f"{len(found.changes)} changes missed; windows until the alarm: "
        + ", ".join("–" if wait is None else str(wait) for wait in found.waited)
        for result in report.policies
        if (found := result.alarms) is not None
    ]


def show_replay(report: ReplayReport, files: list[Path]) -> None:
    """Print the verdict, a row a strategy, a row a retraining, and where the files are."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200)
    rows = strategy_rows(report)
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row.values())
    console.print(verdict(report), "", table, sep="\n")
    for line in alarm_lines(report):
        console.print(line)
    for result in report.policies:
        console.print(f"\npolicy {result.name}: {result.retrains} retrainings, {result.rejected} rejected")
        for training in result.trainings:
            outcome = "released" if training["released"] else "rejected"
            console.print(
                f"  window {training['window']:>3}  {training['known']:>9,} labelled rows  {outcome}  "
                f"history {training['history'] or '–'}  {training['reason']}"
            )
    console.print("\n" + "\n".join(str(file) for file in files))


def write_replay(report: ReplayReport, folder: Path) -> list[Path]:
    """replay.json, replay.png and replay.html, one self-contained page, in `folder`."""
    from jinja2 import Environment

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"replay.{kind}" for kind in ("json", "png", "html")]
    files[0].write_text(json.dumps(report.model_dump(mode="json"), indent=2), encoding="utf-8")
    image = _as_png(_figure(report))
    files[1].write_bytes(image)
    template = (Path(__file__).parent / "replay.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(template)
    files[2].write_text(
        page.render(
            report=report,
            verdict=verdict(report),
            strategies=strategy_rows(report),
            alarms=alarm_lines(report),
            image=base64.b64encode(image).decode(),
        ),
        encoding="utf-8",
    )
    return files


def _figure(report: ReplayReport) -> Figure:
    """The metric per window of every strategy, and below it what each policy did in each window."""
    from matplotlib.figure import Figure

    names = [result.name for result in report.policies]
    figure = Figure(figsize=(10, 4.2 + 0.35 * len(names)), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 0.4 * len(names) + 0.2])
    at = _positions(report)
    top.plot(at, [w.metric_never for w in report.windows], color=_NEVER, linewidth=1.3, label="never retrained")
    for values, colour, label in (
        ([w.metric_always_all for w in report.windows], _ALWAYS, "every window, all history"),
        ([w.metric_always_recent for w in report.windows], _RECENT, "every window, recent history"),
    ):
        top.plot(at, values, color=colour, linewidth=1, linestyle="--", label=label)
    for place, name in enumerate(names):
        colour = _POLICIES[place % len(_POLICIES)]
        found = [window.policies[name] for window in report.windows]
        top.plot(
            at,
            [one["metric"] for one in found],
            color=colour,
            linewidth=max(1.0, 2.6 - 0.8 * place),
            label=f"policy {name}",
        )
        _mark(below, report, at, place, name, colour)
    below.set_yticks(range(len(names)), names)
    below.set_ylim(len(names) - 0.4, -0.6)
    top.set_ylim(bottom=0)
    top.set_ylabel(f"{report.metric} per window")
    top.legend(frameon=False, fontsize=8, ncols=2)
    below.set_xlabel("▲ released  × rejected  · alert" + ("" if _has_dates(report) else "      (window)"))
    for axes in (top, below):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _mark(axes: Any, report: ReplayReport, at: list[Any], place: int, name: str, colour: str) -> None:
    result = report.policies[place]
    alerts = [at[w.index] for w in report.windows if w.policies[name]["action"] == "alert"]
    axes.scatter(alerts, [place] * len(alerts), s=6, color="#9a6b00")
    for released, marker in ((True, "^"), (False, "x")):
        places = [at[t["window"]] for t in result.trainings if t["released"] is released]
        axes.scatter(places, [place] * len(places), s=34, color=colour, marker=marker)


def _has_dates(report: ReplayReport) -> bool:
    """Without a time column windows count as days from 2000 on; their numbers say more."""
    return not report.windows[0].start.startswith("2000-01-01T00:00:00")


def _positions(report: ReplayReport) -> list[Any]:
    return [pd.Timestamp(w.end) if _has_dates(report) else w.index for w in report.windows]


def _as_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
