"""Check: stop here if the data is not what the spec says."""

from __future__ import annotations

import logging

from everloop.adapters.orchestrator import emit_alert, show_markdown
from everloop.adapters.sources import Snapshot
from everloop.domain.checks import CheckReport, check_rows
from everloop.domain.errors import DataBlocked
from everloop.domain.pipelines import check_parameters
from everloop.domain.spec import ModelSpec
from tasks.step import step

log = logging.getLogger("everloop.check")


@step
def check(spec: ModelSpec, snapshot: Snapshot) -> CheckReport:
    """The check report of a snapshot that passed.

    Raises:
        SpecError: a candidate names a parameter its estimator does not have.
        DataBlocked: the check failed; an alert is on its way and the champion stays.
    """
    check_parameters(spec)
    report = check_rows(snapshot.rows, spec)
    show_markdown(f"check-{spec.name}", _as_markdown(spec, snapshot, report), description="Data check")
    log.info("data check: %s (%d findings in %s rows)", report.verdict, len(report.findings), f"{report.rows:,}")
    if report.errors:
        reason = "; ".join(f"{finding.column}: {finding.message}" for finding in report.errors)
        emit_alert(spec.name, f"data check failed: {reason}")
        raise DataBlocked(f"{spec.name}: the data check failed, nothing is trained: {reason}")
    return report


def _as_markdown(spec: ModelSpec, snapshot: Snapshot, report: CheckReport) -> str:
    lines = [
        f"# Data check of {spec.name}: {report.verdict}",
        f"{report.rows:,} rows: {snapshot.source_rows:,} from the source, {snapshot.served_rows:,} served and labelled since. "
        f"Snapshot `{snapshot.digest[:12]}`.",
    ]
    if report.findings:
        lines += ["", "| column | rule | severity | found |", "|---|---|---|---|"]
        lines += [f"| {f.column} | {f.rule} | {f.severity} | {f.message} |" for f in report.findings]
    else:
        lines.append("Nothing was found against the spec.")
    return "\n".join(lines)
