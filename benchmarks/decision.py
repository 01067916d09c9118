"""How long the monitor takes to decide about a window of 100,000 rows and 20 columns, in a warm process.

    python -m benchmarks.decision [--json] [--rows 100000] [--windows 3]

A model with 16 numbers and 4 categories is trained, registered and made champion; then windows of captured predictions with
their labels lie in the inference log as a service leaves them, compacted. The monitor flow runs with a real Prefect server:
the first window warms the process, each later one is timed from the call of the flow to the stored decision and the end of
the flow (which includes the report and MLflow). Compaction of the lines that workers write runs before, and is timed apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from everloop.adapters.registry import Version
    from everloop.domain.spec import ModelSpec

MODEL = "wide"
NUMBERS, CATEGORIES = [f"x{n}" for n in range(16)], [f"c{n}" for n in range(4)]
SOURCE_ROWS = 30_000
REQUEST_ROWS = 1000
SPEC = f"""
name = "{MODEL}"
kind = "regression"
target = "y"
time = "t"
key = "id"
[data]
source = "rows.parquet"
history = "all"
include_served = false
[features]
numeric = {json.dumps(NUMBERS)}
categorical = {json.dumps(CATEGORIES)}
[search]
trials = 1
[[search.candidates]]
estimator = "sklearn.ensemble.HistGradientBoostingRegressor"
max_iter = 50
[gates]
metric = "mae"
worst_allowed = 100.0
[monitor]
window = {{ rows = @ROWS@ }}
slices = ["c0"]
time_parts = ["hour"]
"""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--windows", type=int, default=3)
    asked = parser.parse_args()
    found = measure(asked.rows, asked.windows)
    print(json.dumps(found) if asked.json else "\n".join(f"{key:<28} {value}" for key, value in found.items()))


def measure(rows: int, windows: int) -> dict[str, Any]:
    """The figures."""
    from everloop.adapters.service import free_port

    with tempfile.TemporaryDirectory(prefix="everloop-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        path = home / "models" / MODEL / "model.toml"
        path.parent.mkdir(parents=True)
        path.write_text(SPEC.replace("@ROWS@", str(rows)))
        ports = [free_port() for _ in range(2)]
        os.environ |= {
            "EVERLOOP_HOME": str(home), "EVERLOOP_MODELS": str(home / "models"), "EVERLOOP_DATA": str(home),
            "EVERLOOP_PREFECT_PORT": str(ports[0]), "EVERLOOP_MLFLOW_PORT": str(ports[1]), "EVERLOOP_THREADS": "1",
            "EVERLOOP_PREFECT_API_URL": f"http://127.0.0.1:{ports[0]}/api",
        }  # fmt: skip
        from everloop.settings import settings

        settings.cache_clear()
        settings().apply()
        os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"  # before this process imports Prefect
        _draw(SOURCE_ROWS, seed=0).to_parquet(home / "rows.parquet", index=False)
        from cli.stack import Stack

        with Stack(settings(), models=[]):
            return _run(rows, windows)


def _run(rows: int, windows: int) -> dict[str, Any]:
    from everloop.settings import settings
    from flows.monitor import monitor
    from tasks.compact import compact

    spec = settings().spec(MODEL)
    version = _train(spec)
    compactions, decisions, verdicts = [], [], []
    for window in range(windows + 1):
        _capture(spec, version, _draw(rows, seed=window + 1, first=SOURCE_ROWS + window * rows))
        started = time.perf_counter()
        compact.fn(spec)
        compacted = time.perf_counter()
        (decision,) = asyncio.run(monitor(MODEL))
        compactions.append(compacted - started)
        decisions.append(time.perf_counter() - compacted)
        verdicts.append(decision.action)
    return {
        "seconds_to_decision": round(median(decisions[1:]), 2),
        "worst_seconds_to_decision": round(max(decisions[1:]), 2),
        "seconds_first": round(decisions[0], 2),
        "seconds_compaction": round(median(compactions[1:]), 2),
        "rows": rows,
        "columns": len(NUMBERS) + len(CATEGORIES),
        "actions": verdicts,
    }


def _train(spec: ModelSpec) -> Version:
    """Version 1, champion; these are the steps of flows/train.py without Prefect around them."""
    from benchmarks.lab import register_fit
    from tasks.extract import extract
    from tasks.prepare import prepare
    from tasks.search import search
    from tasks.wiring import registry

    snapshot = extract.fn(spec)
    data = prepare.fn(spec, snapshot)
    found = search.fn(spec, data)
    version = register_fit(spec, snapshot, data, found, found.best, reason="benchmark")
    registry().promote(version)
    return version


def _draw(rows: int, *, seed: int, first: int = 0) -> pd.DataFrame:
    """Rows of an unchanging world, ten thousand a day."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, len(NUMBERS))).astype("float32"), columns=NUMBERS)
    for name in CATEGORIES:
        frame[name] = rng.choice(["a", "b", "c", "d"], rows, p=[0.4, 0.3, 0.2, 0.1])
    frame["y"] = 10 + frame["x0"] * 2 + frame["x1"] + (frame["c0"] == "a") + rng.normal(0, 0.5, rows)
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(first, first + rows) * 8640, unit="ms")
    return frame.assign(t=times, id=np.arange(first, first + rows))


def _capture(spec: ModelSpec, version: Version, rows: pd.DataFrame) -> None:
    """Afterwards the inference log holds the rows as requests that `version` answered, and their labels."""
    from datetime import UTC, datetime

    import orjson

    from everloop.domain.pipelines import predict
    from everloop.settings import settings
    from tasks.wiring import registry

    manifest, pipeline = registry().load(version)
    predictions = predict(pipeline, rows, manifest.row_schema).values
    names = [spec.key, spec.time, *spec.features.names]
    asked = rows[names].assign(t=rows["t"].map(pd.Timestamp.isoformat)).to_dict("records")
    labels = [
        {"key": int(key), "label": float(label), "observed_at": time.isoformat()}
        for key, label, time in zip(rows["id"], rows["y"], rows["t"], strict=True)
    ]
    now = datetime.now(UTC).replace(tzinfo=None)
    here = settings()
    stem = f"bench-{int(rows['id'].iloc[0]):09d}"
    segments = [folder / MODEL / f"date={now:%Y-%m-%d}" / f"{stem}.jsonl" for folder in (here.inference, here.labels)]
    for path in segments:
        path.parent.mkdir(parents=True, exist_ok=True)
    with segments[0].open("wb") as captured, segments[1].open("wb") as observed:
        for start in range(0, len(rows), REQUEST_ROWS):
            at = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
            ids = [f"{stem}-{start + n:06d}" for n in range(min(REQUEST_ROWS, len(rows) - start))]
            part = slice(start, start + REQUEST_ROWS)
            answer = {"predictions": predictions[part].tolist(), "prediction_ids": ids, "model_version": version.number}
            line = {"at": at, "request_id": stem, "ms": 1.0}
            captured.write(
                orjson.dumps(
                    {**line, "request": {"rows": asked[part]}, "answer": answer}, option=orjson.OPT_SERIALIZE_NUMPY
                )
                + b"\n"
            )
            observed.write(orjson.dumps({**line, "request": {"labels": labels[part]}, "answer": None}) + b"\n")


if __name__ == "__main__":
    main()
