"""What a prediction costs: our service beside the limit and three usual ways, with the same model and the same rows.

    python -m benchmarks.serving [--json] [--rounds 20] [--seconds 0.6]

- ours: the worker of `everloop serve`, asked at its own port; validation, capture and metrics are on
- ours, behind HAProxy: the same worker at the service's address; its CPU and that of HAProxy
- the limit: Starlette, ONNX Runtime and orjson on uvloop, nothing else (servers/limit.py)
- mlflow models serve: the registered model, asked with `dataframe_split`
- BentoML, FastAPI: the scikit-learn pipeline behind each, as their documentation shows it (servers/)

A client of eight kept connections asks one set-up at a time; a round asks all of them, briefly, so that whatever else the
machine does meets them alike. CPU is that of every process of a set-up, by the kernel's clock of each: of ours the worker,
of the others all, with the supervisors of MLflow and BentoML, which idle. CPU and requests/s are medians over the rounds,
ratios medians of the rounds' ratios, percentiles those of all requests. Every set-up has one worker and one thread for
arithmetic. With eight requests always under way, latencies are mostly waiting: p50 ≈ 8 / requests per second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import signal
import sys
import time
from dataclasses import dataclass
from itertools import cycle
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.lab import temporary_home, train_versions
from benchmarks.load import Client
from benchmarks.setups import LIMIT, MLFLOW, OURS, SIZES, Setup, running_setups

CONNECTIONS = 8
FEWEST_REQUESTS = 24
WARM_SECONDS = 0.1


@dataclass(frozen=True)
class Turn:
    """What one set-up did with requests of one size while it was asked."""

    cpu_us: float
    requests_per_second: float
    latencies: list[float]


Round = dict[tuple[str, int], Turn]
"""By set-up and rows in a request."""


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=20, help="ask every set-up so many times")
    parser.add_argument("--seconds", type=float, default=0.6, help="ask it so long each time")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything started is stopped
    with contextlib.redirect_stdout(sys.stderr), temporary_home(workers=1) as home:
        _say("training one version, then starting all set-ups …")
        spec, (version,) = train_versions(1)
        with running_setups(home, spec, version) as setups:
            rounds = _measure(setups, wanted.rounds, wanted.seconds)
    report = _ratios(rounds) | {"table": _table(rounds), "rounds": len(rounds)}
    print(json.dumps(report) if wanted.json else _as_text(report))


def _measure(setups: list[Setup], rounds: int, seconds: float) -> list[Round]:
    """The figures of each round; every second one goes backwards."""
    gc.collect()
    gc.freeze()  # what training left is not looked through while requests are timed
    found: list[Round] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for position in range(rounds):
            order = [(setup, size) for size in SIZES for setup in setups]
            turns: Round = {}
            for setup, size in order[:: -1 if position % 2 else 1]:
                runner.run(_load(setup, size, WARM_SECONDS, fewest=CONNECTIONS))
                turns[setup.name, size] = runner.run(_load(setup, size, seconds, fewest=FEWEST_REQUESTS))
            found.append(turns)
            ratios = ", ".join(f"{name} {value}" for name, value in _ratios([turns]).items())
            _say(f"round {position + 1} of {rounds}: {ratios}")
    gc.unfreeze()
    return found


async def _load(setup: Setup, size: int, seconds: float, *, fewest: int) -> Turn:
    """Ask for `seconds`, and at least `fewest` times."""
    bodies = cycle(setup.bodies[size])
    times: list[float] = []
    clients = [Client(setup.port) for _ in range(CONNECTIONS)]
    cpu, started = _cpu_seconds(setup.pids), time.monotonic()

    async def ask(client: Client) -> None:
        while time.monotonic() - started < seconds or len(times) < fewest:
            answer = await client.post(setup.path, next(bodies))
            if answer.status != 200:
                raise SystemExit(f"{setup.name} answered {answer.status}: {answer.body[:300]!r}")
            times.append(answer.ended - answer.started)

    await asyncio.gather(*map(ask, clients))
    took, cpu = time.monotonic() - started, _cpu_seconds(setup.pids) - cpu
    for client in clients:
        await client.close()
    return Turn(cpu / len(times) * 1e6, len(times) / took, times)


def _cpu_seconds(pids: list[int]) -> float:
    """CPU time of the processes, ended threads included, in nanoseconds' resolution: clock_getcpuclockid(3) by hand."""
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def _ratios(rounds: list[Round]) -> dict[str, float]:
    def ratio(above: str, below: str, size: int) -> float:
        return round(median(found[above, size].cpu_us / found[below, size].cpu_us for found in rounds), 2)

    return {
        "cpu_ratio_to_limit_1_row": ratio(OURS, LIMIT, 1),
        "cpu_ratio_to_limit_100_rows": ratio(OURS, LIMIT, 100),
        "cpu_ratio_mlflow_to_ours_1_row": ratio(MLFLOW, OURS, 1),
    }


def _table(rounds: list[Round]) -> list[dict[str, Any]]:
    """One line for each set-up and size."""
    return [
        _line(name, size, [found[name, size] for found in rounds])
        for name, size in sorted(rounds[0], key=itemgetter(1))
    ]


def _line(name: str, size: int, turns: list[Turn]) -> dict[str, Any]:
    p50, p99 = np.percentile(np.concatenate([turn.latencies for turn in turns]), (50, 99)) * 1e3
    return {
        "setup": name,
        "rows": size,
        "cpu_us": round(median(turn.cpu_us for turn in turns), 1),
        "requests_per_second": round(median(turn.requests_per_second for turn in turns), 1),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "requests": sum(len(turn.latencies) for turn in turns),
    }


def _as_text(report: dict[str, Any]) -> str:
    lines = [f"{'':24}{'rows':>5}{'CPU µs':>10}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}"]
    lines += [
        f"{line['setup']:24}{line['rows']:5}{line['cpu_us']:10.0f}{line['requests_per_second']:12.0f}"
        f"{line['p50_ms']:9.2f}{line['p99_ms']:9.2f}"
        for line in report["table"]
    ]
    lines += ["", *(f"{name:32} {value}" for name, value in report.items() if name.startswith("cpu_ratio"))]
    return "\n".join(lines)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


if __name__ == "__main__":
    main()
