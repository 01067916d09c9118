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
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.lab import PROJECT, running_keeper, temporary_home, train_versions, worker_pids
from benchmarks.load import Client

if TYPE_CHECKING:
    from everloop.adapters.registry import Version
    from everloop.domain.manifest import Manifest
    from everloop.domain.spec import ModelSpec

OURS, PROXIED, LIMIT = "ours", "ours, behind HAProxy", "the limit"
MLFLOW, BENTOML, FASTAPI = "mlflow models serve", "BentoML + scikit-learn", "FastAPI + scikit-learn"
SIZES = (1, 100)
CONNECTIONS = 8
FEWEST_REQUESTS = 24
WARM_SECONDS = 0.1
RELATIVE_TOLERANCE = 1e-3
SERVERS = PROJECT / "benchmarks" / "servers"


@dataclass(frozen=True)
class Setup:
    """One way to serve the model: where it is asked, with which bodies by rows in each, and whose CPU it uses."""

    name: str
    port: int
    path: str
    bodies: dict[int, list[bytes]]
    pids: list[int]


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
        _say("training one version …")
        spec, (version,) = train_versions(1)
        with _running_setups(home, spec, version) as setups:
            rounds = _measure(setups, wanted.rounds, wanted.seconds)
    report = _ratios(rounds) | {"table": _table(rounds), "rounds": len(rounds)}
    print(json.dumps(report) if wanted.json else _as_text(report))


@contextlib.contextmanager
def _running_setups(home: Path, spec: ModelSpec, version: Version) -> Iterator[list[Setup]]:
    """Every set-up, ready and of one mind; their processes are gone at the end."""
    from tasks.wiring import registry

    registry().promote(version)
    manifest = registry().manifest(version)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(registry().model_folder(version))
        _say("starting all set-ups …")
        others = [
            stack.enter_context(_Server(name, command, home))
            for name, command in _commands(version, manifest, folder).items()
        ]
        url = stack.enter_context(running_keeper(spec, log=home / "keeper.log"))
        setups = [*_ours(url, spec, manifest), *(server.wait(manifest) for server in others)]
        for setup in setups:
            _check_answers(setup, manifest)
        yield setups


def _commands(version: Version, manifest: Manifest, folder: Path) -> dict[str, list[str]]:
    """The command that starts each set-up that is not ours; `{port}` stands for its port."""
    from everloop.adapters.model_files import ONNX_FILE, find_file

    onnx = find_file(folder, ONNX_FILE)
    if onnx is None:
        raise SystemExit(
            f"{version.label} has no {ONNX_FILE} ({manifest.runtime_reason}); there is no limit to measure"
        )
    numbers, texts = (
        ",".join(feature.name for feature in features)
        for features in (manifest.row_schema.numeric, manifest.row_schema.categorical)
    )
    on_port, source = ["--host", "127.0.0.1", "--port", "{port}"], f"models:/{version.model}/{version.number}"
    return {
        LIMIT: [str(SERVERS / "limit.py"), str(onnx), "{port}", numbers, texts],
        MLFLOW: ["-m", "mlflow", "models", "serve", "-m", source, "--env-manager", "local", *on_port],
        BENTOML: ["-m", "bentoml", "serve", "benchmarks.servers.bentoml_sklearn:BikeDemand", *on_port],
        FASTAPI: ["-m", "uvicorn", "benchmarks.servers.fastapi_sklearn:app", "--no-access-log", *on_port],
    }


class _Server:
    """A set-up that is not ours: started at once, gone with everything below it at the end of the block."""

    def __init__(self, name: str, command: list[str], home: Path) -> None:
        from everloop.adapters.service import free_port
        from everloop.settings import settings

        self._name, self._port, self._patience = name, free_port(), settings().boot_seconds
        self._log = home / f"{name.replace(' ', '-')}.log"
        with self._log.open("wb") as output:
            self._process = psutil.Popen(
                [sys.executable, *(word.replace("{port}", str(self._port)) for word in command)],
                cwd=PROJECT, env=settings().environment(), stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *_: object) -> None:
        tree = self._tree()
        for found in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.terminate()
        _, left = psutil.wait_procs(tree, timeout=10)
        for found in left:
            found.kill()
        psutil.wait_procs(left, timeout=10)

    def wait(self, manifest: Manifest) -> Setup:
        """The set-up, once it answers."""
        bodies, path = (_split(manifest), "/invocations") if self._name == MLFLOW else (_bodies(manifest), "/predict")
        setup = Setup(self._name, self._port, path, bodies, [])
        deadline = time.monotonic() + self._patience
        while not _ask(setup, bodies[1][:1]):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self._name} did not start:\n{self._log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        setup.pids.extend(found.pid for found in self._tree())
        return setup

    def _tree(self) -> list[psutil.Process]:
        if self._process.poll() is not None:
            return []
        return [self._process, *self._process.children(recursive=True)]


def _ours(url: str, spec: ModelSpec, manifest: Manifest) -> list[Setup]:
    """Our worker at its bento's own port, and through the HAProxy in front, if there is one."""
    workers, bodies = worker_pids(url), _bodies(manifest)
    bento, keeper, *_ = psutil.Process(workers[0]).parents()
    command = bento.cmdline()
    setups = [Setup(OURS, int(command[command.index("--port") + 1]), "/predict", bodies, workers)]
    proxies = [child.pid for child in keeper.children() if child.name() == "haproxy"]
    if proxies:
        setups.append(Setup(PROXIED, spec.serving.port, "/predict", bodies, [*workers, *proxies]))
    return setups


def _bodies(manifest: Manifest) -> dict[int, list[bytes]]:
    """The recorded rows as a client of ours sends them."""
    rows = [request.row for request in manifest.rehearsal]
    return {size: [json.dumps({"rows": part}).encode() for part in _parts(rows, size)] for size in SIZES}


def _split(manifest: Manifest) -> dict[int, list[bytes]]:
    """The recorded rows as MLflow's scoring server takes them: the features alone, conformed to the model's signature."""
    from everloop.domain.schema import canonical_category

    schema = manifest.row_schema
    canonical = {feature.name: canonical_category for feature in schema.categorical}
    rows = [[canonical.get(name, float)(request.row[name]) for name in schema.names] for request in manifest.rehearsal]
    frames = {size: [{"columns": schema.names, "data": part} for part in _parts(rows, size)] for size in SIZES}
    return {
        size: [json.dumps({"dataframe_split": frame}).encode() for frame in found] for size, found in frames.items()
    }


def _parts(rows: list[Any], size: int) -> list[list[Any]]:
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def _check_answers(setup: Setup, manifest: Manifest) -> None:
    """Every recorded row gets the recorded prediction, alone and among a hundred."""
    expected = np.array([request.prediction for request in manifest.rehearsal])
    for size in SIZES:
        answers = _ask(setup, setup.bodies[size])
        found = np.concatenate(answers) if answers else np.empty(0)
        wanted = expected[: len(setup.bodies[size]) * size]
        if len(found) != len(wanted):
            raise SystemExit(f"{setup.name} answered {len(found)} of {len(wanted)} rows; there is nothing to compare")
        worst = int(np.argmax(np.abs(found - wanted) / np.abs(wanted)))
        if not np.allclose(found, wanted, rtol=RELATIVE_TOLERANCE, atol=0):
            raise SystemExit(
                f"{setup.name} serves another model: row {worst} gets {found[worst]:.6g}, recorded is {wanted[worst]:.6g}"
            )


def _ask(setup: Setup, bodies: list[bytes]) -> list[list[float]]:
    """The predictions for each body; empty if one is not answered."""

    async def ask() -> list[list[float]]:
        client = Client(setup.port)
        found: list[list[float]] = []
        for body in bodies:
            answer = await client.post(setup.path, body)
            if answer.status != 200:
                found = []
                break
            content = json.loads(answer.body)
            found.append(content if isinstance(content, list) else content["predictions"])
        await client.close()
        return found

    return asyncio.run(ask())


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
