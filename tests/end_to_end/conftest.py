"""One running stack for the tests that need real servers: a small spec of bike-demand, free ports, a home of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from cli.stack import Stack
from cli.traffic import Replay
from everloop.adapters.service import free_port
from everloop.settings import PROJECT, Settings

MODEL = "bike-demand"
SOURCE_ROWS = 1500
CHANGES = {
    "trials = 6": "trials = 2",
    "max_iter = 150": "max_iter = 40",
    "holdout_rows = 240": "holdout_rows = 200",
    "rows = 504": "rows = 100",
    'on_drift = "ignore"': 'on_drift = "ignore"\non_growth = 0\nmax_loss_increase = 0.3\ncooldown = "1h"\nmin_rows = 50',
    'slices = ["workingday"]': "slices = []",
    "worst_allowed = 150.0": "worst_allowed = 5000.0",
}


@dataclass
class Loop:
    """A running stack, and what its tests need to know of it."""

    settings: Settings
    stack: Stack
    future: pd.DataFrame

    def run(self, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program of this project in a process of its own, with the loop's environment."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=PROJECT,
            env=self.settings.environment(threads=2) | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def replay(self, rows: pd.DataFrame) -> Replay:
        """Traffic from `rows`; labels follow at once."""
        spec = self.settings.spec(MODEL)
        return Replay(rows, spec, self.settings.service_url(spec), delay=pd.Timedelta(0))


@pytest.fixture(scope="session")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The stack is up, its flows are deployed, version 1 was trained by `prefect deployment run` and is served."""
    top = tmp_path_factory.mktemp("loop")
    rows = _write_source(top / "data")
    _write_spec(top / "models")
    ports = [free_port() for _ in range(3)]
    settings = Settings(
        home=top / "home",
        models=top / "models",
        data=top / "data",
        prefect_port=ports[0],
        mlflow_port=ports[1],
        service_ports={MODEL: ports[2]},
        prefect_api_url=f"http://127.0.0.1:{ports[0]}/api",
        lease_seconds=6,
        sweep_seconds=0,
        boot_seconds=120,
        verify_seconds=90,
    )
    with Stack(settings, models=[MODEL]) as stack:
        stack.deploy()
        running = Loop(settings, stack, rows)
        running.run("-m", "prefect", "deployment", "run", f"train/{MODEL}", "--watch", "--watch-interval", "1")
        assert stack.is_serving(MODEL), (settings.home / "logs" / "worker.log").read_text()[-3000:]
        yield running


def _write_source(folder: Path) -> pd.DataFrame:
    """Keep the first rows as the source; the rows after it, with their event time."""
    everything = pd.read_csv(PROJECT / "data" / "bike_sharing" / "hour.csv")
    path = folder / "data" / "bike_sharing" / "hour.csv"
    path.parent.mkdir(parents=True)
    everything.iloc[:SOURCE_ROWS].to_csv(path, index=False)
    times = pd.to_datetime(everything["dteday"]) + pd.to_timedelta(everything["hr"], unit="h")
    return everything.assign(datetime=times).iloc[SOURCE_ROWS:].reset_index(drop=True)


def _write_spec(folder: Path) -> None:
    text = (PROJECT / "models" / MODEL / "model.toml").read_text()
    for before, after in CHANGES.items():
        assert before in text, before
        text = text.replace(before, after)
    path = folder / MODEL / "model.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
