"""What the service does with broken requests: no failure, no hang, and every refusal names its reason.

Two sources of requests: schemathesis on the service's /docs.json, and recorded rows broken in every way that
benchmarks/broken_rows.py knows, sent as raw bytes. They go to two workers behind their HAProxy.

    python benchmarks/fuzz.py [--json] [--requests 20000] [--seed 0]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.broken_http import kinds_of_http, slow_attempts
from benchmarks.broken_rows import Recorded, draw_attempts, kinds_of_bodies
from benchmarks.findings import Findings, rule_of
from benchmarks.lab import PROJECT, running_keeper, temporary_home, train_versions, worker_pids
from benchmarks.wire import HANG_SECONDS, Attempt, Line, Reply

if TYPE_CHECKING:
    from everloop.domain.manifest import Manifest
    from everloop.domain.spec import ModelSpec

SENDERS = 8
SCHEMA_SHARE = 0.1
"""Part of the requests that schemathesis makes; one of its takes as long as ten of ours."""
MAX_EXAMPLES = 20


def main() -> int:
    """Run it all; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--requests", type=int, default=20_000, help="how many requests at least")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        report = run(arguments.requests, seed=arguments.seed)
    print(json.dumps(report) if arguments.json else _summary(report))
    return 0 if report["sound"] else 1


def run(requests: int, *, seed: int) -> dict[str, Any]:
    """The report on at least `requests` requests."""
    started = time.monotonic()
    with temporary_home(workers=2, timeout_seconds=2) as home:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(home / "hypothesis")
        from tasks.wiring import registry

        spec, (version,) = train_versions(1)
        registry().promote(version)
        recorded = _recorded(spec, registry().manifest(version))
        findings = Findings(_paths_of_this_machine(home))
        with running_keeper(spec, log=home / "keeper.log") as url:
            before = sorted(worker_pids(url))
            _note("schemathesis")
            send_by_schema(url, findings, examples=math.ceil(requests * SCHEMA_SHARE / 2), seed=seed)
            _note("broken rows")
            kinds = kinds_of_bodies(recorded) | kinds_of_http(recorded)
            attempts = draw_attempts(kinds, max(1, requests - findings.counts["requests"]), seed=seed)
            random.Random(seed).shuffle(attempts)  # noqa: S311 - an order, not a secret
            _note(f"sending {len(attempts)}")
            send(attempts, slow_attempts(recorded), int(url.rpartition(":")[2]), findings)
            problems = _problems_at_the_end(url, spec, before, recorded, findings)
        problems += _problems_of_compaction(spec, findings)
    return _report(findings, problems, time.monotonic() - started)


def send_by_schema(url: str, findings: Findings, *, examples: int, seed: int) -> None:
    """Send what schemathesis makes of /docs.json, `examples` a body, and judge its answers by its checks and by ours."""
    import schemathesis
    from schemathesis.config import SchemathesisConfig
    from schemathesis.engine import events, from_schema

    config = SchemathesisConfig.from_dict(
        {
            "seed": seed, "continue-on-failure": True, "request-timeout": HANG_SECONDS, "suppress-health-check": ["all"],
            "generation": {"max-examples": examples, "database": "none", "no-shrink": True},
            "phases": {"stateful": {"enabled": False}},
            "checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}},
            "output": {"sanitization": {"enabled": False}, "truncation": {"max-recorded-payload-size": 0}},
        }
    )  # fmt: skip
    schema = schemathesis.openapi.from_url(f"{url}/docs.json", config=config)
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _judge_scenario(event, findings)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            findings.note("schemathesis_errors", type(event).__name__, sent=b"", got=repr(event).encode())


def send(attempts: list[Attempt], slow: list[Attempt], port: int, findings: Findings) -> None:
    """Send all and judge each answer; the slow ones wait beside the others."""

    def answers(own: Iterable[Attempt]) -> list[tuple[Attempt, Reply]]:
        line = Line(port)
        try:
            return [(attempt, line.exchange(attempt)) for attempt in own]
        finally:
            line.close()

    with ThreadPoolExecutor(SENDERS + len(slow)) as pool:
        shares = [attempts[start::SENDERS] for start in range(SENDERS)] + [[attempt] for attempt in slow]
        for share in pool.map(answers, shares):
            for attempt, reply in share:
                findings.judge(attempt, reply)


def _recorded(spec: ModelSpec, manifest: Manifest) -> Recorded:
    schema = manifest.row_schema
    required = [feature.name for feature in schema.features if not feature.nullable]
    rows = [request.row for request in manifest.rehearsal]
    return Recorded(rows, required, str(schema.time), spec.serving.max_rows, spec.serving.max_body_bytes)


def _judge_scenario(event: Any, findings: Findings) -> None:
    recorder = event.recorder
    for case, interaction in recorder.interactions.items():
        asked, response = interaction.request, interaction.response
        sent = f"{asked.method} {asked.uri}\n".encode() + (asked.body or b"")
        reply = Reply("hang", 0, b"", b"", HANG_SECONDS)  # or closed: schemathesis_errors says which
        if response is not None:
            head = "".join(f"{name}: {', '.join(values)}\r\n" for name, values in response.headers.items())
            reply = Reply("answered", response.status_code, head.encode(), response.content or b"", 0.0)
        findings.judge(Attempt(f"schemathesis {event.phase.value}", sent, "any"), reply)
        for check in recorder.checks.get(case, []):
            if check.failure_info is not None:
                group = f"{recorder.label}: {check.name}: {check.failure_info.failure.title}: {rule_of(reply.body)}"
                findings.note("nonconforming", re.sub(r"\d+", "N", group), sent=sent, got=reply.body)


def _problems_at_the_end(
    url: str, spec: ModelSpec, before: list[int], recorded: Recorded, findings: Findings
) -> list[str]:
    """What is not as it was before."""
    from everloop.adapters.service import describe_service

    found = []
    last = Findings(findings.leaks_of)
    send(
        draw_attempts({"valid": kinds_of_bodies(recorded)["valid"]}, 20, seed=1), [], int(url.rpartition(":")[2]), last
    )
    findings.counts["answered_rows"] += last.counts["answered_rows"]
    if last.counts["wrongly_refused"]:
        found.append(f"the service no longer answers valid requests: {last.problems}")
    if (after := sorted(worker_pids(url))) != before:
        found.append(f"workers have ended: {before} became {after}")
    if (health := (describe_service(url) or {}).get("health")) != "healthy":
        found.append(f"health is {health}")
    if (captured := _captured_rows(spec)) != findings.counts["answered_rows"]:
        found.append(f"{captured} rows are captured, {findings.counts['answered_rows']} were answered")
    return found


def _problems_of_compaction(spec: ModelSpec, findings: Findings) -> list[str]:
    """What compaction cannot do with what was answered; the service has stopped."""
    from everloop.adapters.inference_log import compact_captured, compact_labels
    from everloop.settings import settings

    found = []
    for folder, compact in ((settings().inference, compact_captured), (settings().labels, compact_labels)):
        try:
            compact(folder, spec)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is the finding
            found.append(f"{compact.__name__} fails on what was accepted: {exc}")
    if (captured := _captured_rows(spec)) != findings.counts["answered_rows"]:
        found.append(f"{captured} rows are left after compaction, {findings.counts['answered_rows']} were answered")
    return found


def _captured_rows(spec: ModelSpec) -> int:
    from everloop.adapters.inference_log import read_captured
    from everloop.settings import settings

    return len(read_captured(settings().inference, spec))


def _paths_of_this_machine(home: Path) -> re.Pattern[bytes]:
    """What no answer may hold: a stack trace, or where something lies on this machine."""
    places = {str(PROJECT), str(home), sys.prefix, sys.base_prefix, tempfile.gettempdir(), str(Path.home())} - {"/"}
    return re.compile(b"|".join([b"Traceback", *(re.escape(place.encode()) + b"/" for place in sorted(places))]))


def _report(findings: Findings, problems: list[str], seconds: float) -> dict[str, Any]:
    counts = findings.counts
    headline = ("requests", "server_errors", "hangs", "unexplained")
    wrong = ("closed_without_answer", "wrongly_accepted", "wrongly_refused", "leaks", "nonconforming")
    faults = [name for name in (*headline[1:], *wrong, "schemathesis_errors") if counts[name]]
    return {
        **{name: counts[name] for name in (*headline, *wrong)},
        "sound": not faults and not problems,
        "problems": problems,
        "explained_by_http_layer": counts["explained_by_http_layer"],
        "answered_rows": counts["answered_rows"],
        "seconds": round(seconds, 1),
        "by_status": dict(sorted(findings.statuses.items())),
        "by_kind": {kind: dict(sorted(found.items())) for kind, found in sorted(findings.kinds.items())},
        "examples": {
            problem: dict(sorted(groups.items(), key=lambda item: -item[1]["count"])[:MAX_EXAMPLES])
            for problem, groups in findings.problems.items()
        },
    }


def _summary(report: dict[str, Any]) -> str:
    lines = [f"{name}: {found}" for name, found in report.items() if not isinstance(found, dict | list)]
    lines += [f"by status: {report['by_status']}", *(f"  {kind}: {seen}" for kind, seen in report["by_kind"].items())]
    lines += [f"PROBLEM: {problem}" for problem in report["problems"]]
    for problem, groups in report["examples"].items():
        for group, example in groups.items():
            lines.append(
                f"\n{problem}: {group} ({example['count']} times)\n  sent {example['sent']!r}\n  got {example['got']!r}"
            )
    return "\n".join(lines)


def _note(step: str) -> None:
    print(f"{time.strftime('%X')} {step}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
