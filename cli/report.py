"""What the demo tells: a table on the terminal, report.json for machines, report.html for people."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

_LOOP, _NEVER, _SWAP = "#0b6e99", "#c8553d", "#555555"


@dataclass
class WindowScore:
    """One monitored window, scored with the versions that served it and with version 1."""

    id: str
    start: str
    end: str
    version: str
    action: str
    reason_codes: list[str]
    mae_with_loop: float
    mae_never_retrained: float
    drifted_columns: list[str]
    drift: dict[str, float]


@dataclass
class Retrain:
    """One retraining: what started it, what became of it, and how long each part took (seconds)."""

    decision: str
    at: str
    reason: str
    version: str
    outcome: str
    started_by: str
    runtime: str
    trained_until: str
    seconds: dict[str, float]
    seconds_degraded_to_served: float | None


@dataclass
class DemoReport:
    """Everything the demo measured."""

    model: str
    metric: str
    runtime: str = ""
    runtime_reason: str = ""
    windows: list[WindowScore] = field(default_factory=list)
    retrains: list[Retrain] = field(default_factory=list)
    mae_never_retrained: float = 0.0
    mae_with_loop: float = 0.0
    rows_served: int = 0
    rows_captured: int = 0
    requests: int = 0
    failed_requests: int = 0
    champion_version: str | None = None
    served_version: str | None = None
    seconds_total: float = 0.0

    @property
    def triggered_by_automation(self) -> int:
        """Retrainings whose run an automation created."""
        return sum(retrain.started_by == "automation" for retrain in self.retrains)

    @property
    def ratio(self) -> float:
        """Mean absolute error with the loop over that of version 1, on the same served rows."""
        return self.mae_with_loop / self.mae_never_retrained if self.mae_never_retrained else 1.0

    @property
    def median_seconds(self) -> float | None:
        """Median seconds from decision to served, over the retrainings that went live."""
        found = [r.seconds_degraded_to_served for r in self.retrains if r.seconds_degraded_to_served is not None]
        return median(found) if found else None

    def missing_parts(self) -> list[str]:
        """The parts of the story that did not happen, each in one sentence."""
        first = next((position for position, window in enumerate(self.windows) if window.action == "retrain"), None)
        promoted = [retrain for retrain in self.retrains if retrain.seconds_degraded_to_served is not None]
        parts = {
            "the service answered every request": self.failed_requests == 0,
            "every answered row was captured": self.rows_captured == self.rows_served,
            "a retraining was decided": bool(self.retrains),
            "nothing fired in the first window": first is None or first > 0,
            "the automation started every retraining": self.triggered_by_automation == len(self.retrains),
            "a better version took over the running service": bool(promoted),
            "the service serves the champion": self.served_version == self.champion_version is not None,
            "the loop lowered the error": self.mae_with_loop < self.mae_never_retrained,
        }
        return [part for part, happened in parts.items() if not happened]

    def as_json(self) -> dict[str, Any]:
        """The report with the keys that machines read."""
        return {
            "windows": [asdict(window) for window in self.windows],
            "retrains": len(self.retrains),
            "triggered_by_automation": self.triggered_by_automation,
            "mae_never_retrained": self.mae_never_retrained,
            "mae_with_loop": self.mae_with_loop,
            "mae_ratio": self.ratio,
            "requests": self.requests,
            "failed_requests": self.failed_requests,
            "rows_served": self.rows_served,
            "rows_captured": self.rows_captured,
            "seconds_degraded_to_served": [asdict(retrain) for retrain in self.retrains],
            "seconds_degraded_to_served_median": self.median_seconds,
            "champion_version": self.champion_version,
            "served_version": self.served_version,
            "runtime": self.runtime,
            "runtime_reason": self.runtime_reason,
            "seconds_total": self.seconds_total,
            "story_complete": not self.missing_parts(),
        }

    def figures(self) -> list[tuple[str, str]]:
        """Name and value of the headline figures."""
        seconds = self.median_seconds
        return [
            ("mean absolute error, never retrained", f"{self.mae_never_retrained:.1f}"),
            ("mean absolute error, with the loop", f"{self.mae_with_loop:.1f}  ({self.ratio:.2f} ×)"),
            ("retrainings, started by the automation", f"{len(self.retrains)}, {self.triggered_by_automation}"),
            ("degraded → served, median", f"{seconds:.0f} s" if seconds else "–"),
            ("requests, failed", f"{self.requests:,}, {self.failed_requests}"),
            ("rows served, captured", f"{self.rows_served:,}, {self.rows_captured:,}"),
            ("champion, served", f"v{self.champion_version}, v{self.served_version}"),
            ("served by", f"{self.runtime}: {self.runtime_reason}"),
        ]

    def show(self, console: Console) -> None:
        """Print the headline figures and one line a window."""
        from rich.table import Table

        table = Table(
            "window ends",
            "version",
            "never retrained",
            "with the loop",
            "drifted",
            "decision",
            box=None,
            pad_edge=False,
        )
        for window in self.windows:
            what = window.action if window.action != "none" else ""
            row = (
                window.end[:10],
                f"v{window.version}",
                f"{window.mae_never_retrained:.1f}",
                f"{window.mae_with_loop:.1f}",
            )
            table.add_row(*row, str(len(window.drifted_columns)), what)
        console.print(table)
        for name, value in self.figures():
            console.print(f"{name:<42}{value}")


def write_report(report: DemoReport, folder: Path) -> None:
    """Afterwards `folder` holds report.json and report.html, one self-contained page."""
    from jinja2 import Environment

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report.as_json(), indent=2), encoding="utf-8")
    template = (Path(__file__).parent / "report.html.jinja").read_text(encoding="utf-8")
    plots = [
        ("Error over time", _error_plot(report)),
        ("Drift", _drift_plot(report)),
        ("From degraded to served", _latency_plot(report)),
    ]
    page = (
        Environment(autoescape=True)
        .from_string(template)
        .render(report=report, plots=[(title, _embed(plot)) for title, plot in plots])
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _error_plot(report: DemoReport) -> Figure:
    figure, axes = _new()
    ends = [pd.Timestamp(window.end) for window in report.windows]
    axes.plot(
        ends,
        [w.mae_never_retrained for w in report.windows],
        color=_NEVER,
        marker="o",
        markersize=3,
        label="version 1, never retrained",
    )
    axes.plot(
        ends,
        [w.mae_with_loop for w in report.windows],
        color=_LOOP,
        marker="o",
        markersize=3,
        label="served, with the loop",
    )
    top = axes.get_ylim()[1]
    for retrain in report.retrains:
        if retrain.seconds_degraded_to_served is not None:
            axes.axvline(pd.Timestamp(retrain.at), color=_SWAP, linewidth=0.8, linestyle="--")
            axes.annotate(
                f"v{retrain.version}",
                (pd.Timestamp(retrain.at), top),
                color=_SWAP,
                ha="center",
                va="bottom",
                fontsize=9,
            )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("mean absolute error per window")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.95))
    return figure


def _drift_plot(report: DemoReport) -> Figure:
    figure, axes = _new()
    ends = [pd.Timestamp(window.end) for window in report.windows]
    columns = sorted({name for window in report.windows for name in window.drift})
    peaks = {name: max(window.drift.get(name, 0.0) for window in report.windows) for name in columns}
    for position, name in enumerate(sorted(columns, key=lambda column: -peaks[column])):
        style = {"linewidth": 1.6} if position < 6 else {"linewidth": 0.7, "color": "#bbbbbb"}
        axes.plot(
            ends,
            [window.drift.get(name, float("nan")) for window in report.windows],
            label=name if position < 6 else None,
            **style,
        )
    axes.axhline(0.05, color=_SWAP, linewidth=0.8, linestyle=":")
    axes.annotate(
        "floor 0.05",
        (0.995, 0.05),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=8,
        color=_SWAP,
    )
    axes.set_ylim(0, None)
    axes.set_ylabel("distance from the champion's\ntraining rows (KS, total variation)")
    axes.legend(frameon=False, fontsize=8, ncols=3)
    return figure


def _latency_plot(report: DemoReport) -> Figure:
    figure, axes = _new(height=0.9 + 0.5 * max(len(report.retrains), 1))
    colours = {"run started": "#9bb8c9", "trained": "#5d93ad", "rehearsed": "#2a6f8e", "serving": "#0b3c52"}
    labels = [f"v{retrain.version}" for retrain in report.retrains]
    left = [0.0] * len(labels)
    for name, colour in colours.items():
        widths = [retrain.seconds.get(name, 0.0) for retrain in report.retrains]
        axes.barh(labels, widths, left=left, color=colour, label=name, height=0.6)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds after the decision was stored")
    axes.legend(frameon=False, ncols=4, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _new(height: float = 3.6) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _embed(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return base64.b64encode(buffer.getvalue()).decode()
