"""`everloop tune-policy`: the policy's few knobs, chosen on the early part of a history and reported on the later one."""

from __future__ import annotations

import json
import sys

from cli.replay import history_of, progress, staged
from everloop.domain.errors import SpecError
from everloop.domain.replay_timeline import ReplayPlan
from everloop.domain.replay_training import Trainer
from everloop.domain.replay_tuning import TuningReport, tune_policy
from everloop.domain.replay_variants import as_snippet
from everloop.settings import settings


def run_tuning(
    model: str, plan: ReplayPlan, *, share: float = 0.6, most_retrains: int | None = None, served: bool = False
) -> TuningReport:
    """What tuning the policy of `model` found; fits are shared with `everloop replay`.

    Raises:
        SpecError: the policy retrains on drift, which tuning does not look at.
    """
    settings().apply()
    spec = settings().spec(model)
    if spec.monitor.on_drift == "retrain":
        raise SpecError(
            f"{model}: monitor.on_drift is 'retrain' and tuning looks at the loss and at growth only, so it would compare with "
            "another policy; set on_drift to 'alert' to tune, or compare policies by `everloop replay --policy …`"
        )
    rows = history_of(spec, served=served, begin=None, end=None)
    with staged(spec, rows, plan) as stage, progress() as on_step:
        return tune_policy(
            stage.timeline,
            Trainer(stage.subject, stage.fits),
            spec.monitor,
            share=share,
            most_retrains=most_retrains,
            on_step=lambda done, whole: on_step("policies", done, whole),
        )


def tune_model(
    model: str, plan: ReplayPlan, *, share: float, most_retrains: int | None, served: bool, as_json: bool
) -> None:
    """Print what tuning found, and the `[monitor]` table to paste."""
    report = run_tuning(model, plan, share=share, most_retrains=most_retrains, served=served)
    if as_json:
        snippet = {"snippet": as_snippet(report.chosen)}
        print(json.dumps(report.model_dump(mode="json") | snippet, indent=2))  # noqa: T201
    else:
        show_tuning(report)


def show_tuning(report: TuningReport) -> None:
    """Print both parts as a table, the verdicts, and the snippet."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    early, late = f"first {report.windows_early} windows", f"last {report.windows_late} windows"
    table = Table("policy", f"{report.metric}, {early}", "retrains", f"{report.metric}, {late}", "retrains", box=None)
    for name in ("current", "default", "chosen"):
        before, after = report.early[name], report.late[name]
        table.add_row(name, f"{before.metric:.4g}", f"{before.retrains}", f"{after.metric:.4g}", f"{after.retrains}")
    console.print(
        f"{report.model}: {report.tried} policies, chosen on the {early} with at most {report.most_retrains} retrainings there, "
        f"reported on the {late}\n"
    )
    console.print(table)
    for line in verdicts(report):
        console.print(line)
    console.print("\n" + as_snippet(report.chosen), markup=False)


def verdicts(report: TuningReport) -> list[str]:
    """What the chosen policy gains and costs on the later windows against each other policy, one sentence each."""
    return [
        f"against {found.other}: mean loss {abs(found.gain):.4g} {'lower' if found.gain >= 0 else 'higher'} "
        f"(90 % interval of the gain {found.low:+.4g} to {found.high:+.4g}), {found.more_retrains:+d} retrainings: "
        + {
            "better": "better than it",
            "worse": "worse than it: keep what you have",
            "within noise": "within noise, no reason to change",
        }[found.verdict]
        for found in report.comparisons
    ]
