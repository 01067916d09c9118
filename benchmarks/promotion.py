"""Versions change under full load: promotions, rollbacks and hand-overs while clients without retries keep asking.

    python -m benchmarks.promotion [--json] [--requests 200000] [--promotions 20] [--rollbacks 5]

`failed`: answers other than 200, and broken connections. `wrong_version`: answers whose version was not champion at any
moment of their request, or whose prediction is not the one of that version. A promotion lasts from the moment at which the
alias begins to move until every worker serves the version: in that time both versions count. How long the old one answered
after the alias had moved is reported as `switch_seconds`. `captured_minus_answered` compares the inference log with the
rows of the answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.lab import MODEL, running_keeper, temporary_home, train_versions
from benchmarks.load import Client

if TYPE_CHECKING:
    from everloop.adapters.registry import Version
    from everloop.domain.spec import ModelSpec

KEPT, CLOSING = 16, 4
HAND_OVER_EVERY = 5
PAUSE_SECONDS = 1.0


@dataclass
class Reign:
    """A time in which a version was champion: from when its alias began to move until every worker served the next."""

    version: str
    begun: float
    moved: float = 0.0
    served: float = 0.0
    ended: float = field(default=float("inf"))


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--requests", type=int, default=200_000, help="send at least so many")
    parser.add_argument("--promotions", type=int, default=20)
    parser.add_argument("--rollbacks", type=int, default=5)
    wanted = parser.parse_args()
    with temporary_home(workers=2) as home:
        print(f"training and packaging {wanted.promotions + 1} versions …", file=sys.stderr)
        spec, versions = train_versions(wanted.promotions + 1)
        _package_with_other_dependencies(versions[HAND_OVER_EVERY::HAND_OVER_EVERY])
        figures = _measure(home, spec, versions, wanted)
    if wanted.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:26} {value}")


def _package_with_other_dependencies(versions: list[Version]) -> None:
    """Package them again with one dependency more, so that they cannot be swapped into a process of the others."""
    import bentoml

    import serving.build
    from tasks.package import package

    usual = serving.build.PACKAGES
    serving.build.PACKAGES = (*usual, "httpx")
    for version in versions:
        bentoml.bentos.delete(version.bento)
        package.fn(version)
    serving.build.PACKAGES = usual


def _measure(home: Path, spec: ModelSpec, versions: list[Version], wanted: argparse.Namespace) -> dict[str, Any]:
    from tasks.wiring import registry

    registry().promote(versions[0])
    recorded = {version.number: registry().manifest(version) for version in versions}
    rows = [request.row for request in recorded[versions[0].number].rehearsal]
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    with running_keeper(spec, log=home / "keeper.log"), tempfile.TemporaryDirectory() as scratch:
        reigns = [Reign(versions[0].number, 0.0)]
        arguments = (spec.serving.port, rows, wanted.requests, stop, Path(scratch) / "answers.npz")
        load = spawn.Process(target=_load, args=arguments)
        load.start()
        started = time.monotonic()
        _change_versions(spec, versions, wanted, reigns)
        changed = time.monotonic() - started
        stop.set()
        load.join()
        answers = dict(np.load(Path(scratch) / "answers.npz"))
        captured = _captured_rows(home, spec)
    answered = answers["status"] == 200
    switches = [reign.served - reign.moved for reign in reigns[1:]]
    return {
        "requests": len(answered),
        "promotions": wanted.promotions,
        "failed": int(np.sum(~answered)),
        "wrong_version": _count_wrong(answers, reigns, recorded),
        "captured_minus_answered": captured - int(answered.sum()),
        "rollbacks": wanted.rollbacks,
        "hand_overs": (home / "keeper.log").read_text().count("handing over"),
        "switch_seconds": {"median": round(median(switches), 3), "largest": round(max(switches), 3)},
        "requests_per_second": round(len(answered) / (answers["ended"].max() - answers["started"].min())),
        "seconds_of_changes": round(changed, 1),
        "failures": answers["failures"].tolist(),
    }


def _change_versions(spec: ModelSpec, versions: list[Version], wanted: argparse.Namespace, reigns: list[Reign]) -> None:
    """Promote one version after the other, and roll some of them back before the next one."""
    from tasks.promote import promote
    from tasks.rollback import roll_back
    from tasks.wiring import registry

    every = max(1, wanted.promotions // max(1, wanted.rollbacks))
    rolled_back = 0
    for position, version in enumerate(versions[1:], start=1):
        _reign(spec, version, lambda version=version: promote.fn(version, "benchmark"), reigns)
        if position % every == 0 and rolled_back < wanted.rollbacks:
            before = registry().at_alias(MODEL, "previous")
            assert before is not None
            _reign(spec, before, lambda: roll_back(MODEL, reason="benchmark", by="benchmark"), reigns)
            rolled_back += 1
        print(f"{position} of {wanted.promotions} promoted, {rolled_back} rolled back", file=sys.stderr)


def _reign(spec: ModelSpec, version: Version, move: Any, reigns: list[Reign]) -> None:
    from tasks.verify import wait_until_served

    reign = Reign(version.number, begun=time.monotonic())
    move()
    reign.moved = time.monotonic()
    found = wait_until_served(spec, version)
    if found.status != "served":
        raise SystemExit(f"v{version.number} is not served: {found.detail}")
    reign.served = reigns[-1].ended = time.monotonic()
    reigns.append(reign)
    time.sleep(PAUSE_SECONDS)


def _load(port: int, rows: list[dict[str, Any]], requests: int, stop: Event, path: Path) -> None:
    """Send requests of one row until `stop` is set and at least `requests` were sent; keep every answer in `path`."""
    asyncio.run(_send(port, [json.dumps({"rows": [row]}).encode() for row in rows], requests, stop, path))


async def _send(port: int, bodies: list[bytes], requests: int, stop: Event, path: Path) -> None:
    sent, seen, failures = 0, [], []

    async def ask(client: Client) -> None:
        nonlocal sent
        while sent < requests or not stop.is_set():
            row, sent = sent % len(bodies), sent + 1
            answer = await client.post("/predict", bodies[row])
            found = json.loads(answer.body) if answer.status == 200 else {"model_version": 0, "predictions": [0.0]}
            seen.append(
                (row, answer.status, int(found["model_version"]), found["predictions"][0], answer.started, answer.ended)
            )
            if answer.status != 200 and len(failures) < 10:
                failures.append(f"{answer.status}: {answer.body[:200]!r}")

    clients = [Client(port) for _ in range(KEPT)] + [Client(port, keep_alive=False) for _ in range(CLOSING)]
    await asyncio.gather(*map(ask, clients))
    names = ("row", "status", "version", "prediction", "started", "ended")
    columns = {name: np.array(column) for name, column in zip(names, zip(*seen, strict=True), strict=True)}
    np.savez(path, **columns, failures=np.array(failures))


def _count_wrong(answers: dict[str, Any], reigns: list[Reign], recorded: dict[str, Any]) -> int:
    right = answers["status"] != 200  # a failure is counted as one, not twice
    for reign in reigns:
        of_version = answers["version"] == int(reign.version)
        right |= of_version & (answers["ended"] >= reign.begun) & (answers["started"] <= reign.ended)
    for number, manifest in recorded.items():
        expected = np.array([request.prediction for request in manifest.rehearsal])[answers["row"]]
        differs = np.abs(answers["prediction"] - expected) > manifest.tolerance + 1e-6 * np.abs(expected)
        right &= ~((answers["version"] == int(number)) & differs)
    return int(np.sum(~right))


def _captured_rows(home: Path, spec: ModelSpec) -> int:
    from everloop.adapters.inference_log import read_captured

    return len(read_captured(home / "inference", spec))


if __name__ == "__main__":
    main()
