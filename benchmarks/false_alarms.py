"""Windows without change: how often each detector alarms, and how often everloop's policy would retrain for nothing.

    python -m benchmarks.false_alarms [--json] [--quick] [--windows 2000] [--references 4] [--processes 2]

Streams: benchmarks/no_change.py, of the bike and the bank data, independent and autocorrelated, windows of 200, 1,000 and
10,000 rows (half as many of these) with 10 and 50 columns, against several references each, because the error of a
reference is common to its windows; every other one was validated on the shipped default's holdout, the rest on 5,000 rows.

`alarmed_share`: windows whose own verdict is drift, degraded, decaying or broken;
`false_retrains`: decisions to retrain, with `on_drift = "retrain"` too and no cooldown. `upper_95` is the upper
confidence bound (Clopper & Pearson 1934) as if windows were independent of each other. A sample of the same windows goes
through whylogs' own drift scores and Evidently's DataDriftPreset, both with their defaults: a window is alarmed if at
least one column drifted (`evidently_data_set_share`: if half of them did). Each is installed into an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "WHYLOGS_NO_ANALYTICS": "True"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.no_change import POOLS, Pool, draw_window
from benchmarks.watching import (
    HOLDOUTS,
    Watch,
    draw_baseline,
    draw_reference,
    is_alarmed,
    is_broken,
    learn,
    only,
    profile,
)
from everloop.adapters.profiles import summarize_profile

ROWS = (200, 1000, 10_000)
SAMPLED = 10  # windows of a setting that the other detectors judge
DETECTORS = Path(__file__).resolve().parent / "detectors"
REQUIREMENTS = {
    "whylogs": ("whylogs[viz]>=1.6.4", "pandas<3", "numpy<2", "pyarrow<26", "setuptools"),
    "evidently": ("evidently>=0.7", "pandas<3", "numpy<2.1", "pyarrow"),
}
SCRIPTS = {"whylogs": "whylogs_scores.py", "evidently": "evidently_preset.py"}


@dataclass(frozen=True)
class Job:
    """One reference of one stream and the windows that are judged against it."""

    pool: str
    autocorrelated: bool
    rows: int
    windows: int
    seed: int


@dataclass
class Tally:
    """What was counted in one setting."""

    windows: int = 0
    alarmed: int = 0
    drift: int = 0
    degraded: int = 0
    decaying: int = 0
    broken: int = 0
    false_retrains: int = 0
    blocks_alarmed: list[float] = field(default_factory=list)
    persistence: list[int] = field(default_factory=list)
    columns_drifted: dict[str, int] = field(default_factory=dict)


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--quick", action="store_true", help="100 windows a setting: shows that it runs, not that it holds"
    )
    parser.add_argument(
        "--windows", type=int, default=2000, help="of 200 and 1,000 rows in each setting; half of 10,000"
    )
    parser.add_argument("--references", type=int, default=4)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--alone", action="store_true", help="leave whylogs' and Evidently's own detectors out")
    wanted = parser.parse_args()
    windows = 100 if wanted.quick else wanted.windows
    others = {} if wanted.alone else _ask_others(5 if wanted.quick else SAMPLED)
    settings = _measure(windows, 2 if wanted.quick else wanted.references, wanted.processes)
    for setting in settings:
        for name, drifted in others.get((setting["data"], setting["stream"], setting["rows"]), {}).items():
            setting |= _shares(name, drifted, pool_of(setting["data"]), setting["columns"])
    figures = _summary(settings)
    if wanted.json:
        print(json.dumps(figures))
        return
    for setting in settings:
        print("  ".join(f"{name} {_short(value)}" for name, value in setting.items() if name != "columns_drifted"))
    for name, value in figures.items():
        if name != "settings":
            print(f"{name:32} {value}")


def _measure(windows: int, references: int, processes: int) -> list[dict[str, Any]]:
    """The figures of every setting, everloop only."""
    jobs = [
        Job(pool, autocorrelated, rows, (windows if rows < 10_000 else windows // 2) // references, seed)
        for pool in POOLS
        for autocorrelated in (False, True)
        for rows in ROWS
        for seed in range(references)
    ]
    tallies: dict[tuple[str, bool, int, int], Tally] = {}
    with ProcessPoolExecutor(processes) as executor:
        for job, found in zip(jobs, executor.map(run_job, jobs), strict=True):
            print(f"{job}: {[tally.alarmed for tally in found.values()]} alarmed", file=sys.stderr)
            for columns, tally in found.items():
                _add(tallies.setdefault((job.pool, job.autocorrelated, job.rows, columns), Tally()), tally)
    return [_figures(*key, tally) for key, tally in tallies.items()]


def run_job(job: Job) -> dict[int, Tally]:
    """The counts of one job, by number of columns."""
    pool = pool_of(job.pool)
    rng = np.random.default_rng([job.seed, job.rows, job.autocorrelated])
    blocks = draw_reference(pool, job.rows, rng, autocorrelated=job.autocorrelated)
    columns, holdout = (pool.narrow(), pool.schema.names), HOLDOUTS[job.seed % len(HOLDOUTS)]
    validate = partial(draw_baseline, pool, job.rows, rng, autocorrelated=job.autocorrelated, holdout=holdout)
    watches = [Watch(reference, validate=validate) for reference in learn(pool, blocks, validate(), columns)]
    tallies = {len(names): Tally(job.windows) for names in columns}
    for watch, tally in zip(watches, tallies.values(), strict=True):
        tally.blocks_alarmed.append(watch.reference.calibration.alarmed_share)
        tally.persistence.append(watch.reference.calibration.persistence_needed)
    for _ in range(job.windows):
        rows = draw_window(pool, job.rows, rng, autocorrelated=job.autocorrelated)
        summary = summarize_profile(profile(pool, rows))
        for names, watch, tally in zip(columns, watches, tallies.values(), strict=True):
            decision = watch.judge(only(summary, names), pool.losses[rows])
            tally.alarmed += is_alarmed(decision)
            tally.drift += decision.drift.verdict == "drift"
            tally.degraded += decision.performance.verdict == "degraded"
            tally.decaying += decision.decay is not None and decision.decay.verdict == "decaying"
            tally.broken += is_broken(decision)
            tally.false_retrains += decision.is_fired
            for column in decision.drift.drifted:
                tally.columns_drifted[column] = tally.columns_drifted.get(column, 0) + 1
    return tallies


@cache
def pool_of(name: str) -> Pool:
    """The pool, made once in a process."""
    return POOLS[name]()


def _add(total: Tally, more: Tally) -> None:
    for name in ("windows", "alarmed", "drift", "degraded", "decaying", "broken", "false_retrains"):
        setattr(total, name, getattr(total, name) + getattr(more, name))
    total.blocks_alarmed += more.blocks_alarmed
    total.persistence += more.persistence
    for column, count in more.columns_drifted.items():
        total.columns_drifted[column] = total.columns_drifted.get(column, 0) + count


def _figures(pool: str, autocorrelated: bool, rows: int, columns: int, tally: Tally) -> dict[str, Any]:
    return {
        "data": pool,
        "stream": "autocorrelated" if autocorrelated else "independent",
        "rows": rows,
        "columns": columns,
        "windows": tally.windows,
        "alarmed_share": tally.alarmed / tally.windows,
        "alarmed_upper_95": _upper(tally.alarmed, tally.windows),
        "drift": tally.drift,
        "degraded": tally.degraded,
        "decaying": tally.decaying,
        "broken": tally.broken,
        "false_retrains": tally.false_retrains,
        "false_retrains_per_1000": 1000 * tally.false_retrains / tally.windows,
        "false_retrains_upper_95": 1000 * _upper(tally.false_retrains, tally.windows),
        "blocks_alarmed": float(np.mean(tally.blocks_alarmed)),
        "persistence_needed": max(tally.persistence),
        "columns_drifted": tally.columns_drifted,
    }


def _upper(hits: int, n: int) -> float:
    """The one-sided upper 95 % bound of a share (Clopper & Pearson 1934)."""
    return 1.0 if hits >= n else float(stats.beta.ppf(0.95, hits + 1, n - hits))


def _ask_others(sampled: int) -> dict[tuple[str, str, int], dict[str, list[list[str]]]]:
    """For each stream and detector, which columns whylogs and Evidently call drifted in `sampled` of its windows.

    They judge column by column, so what they say of 50 columns holds what they say of the first 10.
    """
    from benchmarks.isolated import isolated_python

    streams = [(pool, stream, rows) for pool in POOLS for stream in ("independent", "autocorrelated") for rows in ROWS]
    found: dict[tuple[str, str, int], dict[str, list[list[str]]]] = {stream: {} for stream in streams}
    for name, requirements in REQUIREMENTS.items():
        with isolated_python(requirements) as python:
            for stream in streams:
                print(f"{name}: {stream}", file=sys.stderr)
                found[stream][name] = _judged_by(python, SCRIPTS[name], stream, sampled)
    return found


def _shares(detector: str, drifted: list[list[str]], pool: Pool, columns: int) -> dict[str, float]:
    """The share of windows with at least one drifted column, and for Evidently also with half of them."""
    names = set(pool.schema.names[:columns])
    counts = np.array([len(names.intersection(of_window)) for of_window in drifted])
    shares = {f"{detector}_alarmed_share": float(np.mean(counts > 0))}
    if detector == "evidently":
        shares["evidently_data_set_share"] = float(np.mean(counts >= columns / 2))
    return shares


def _judged_by(python: Path, script: str, stream: tuple[str, str, int], sampled: int) -> list[list[str]]:
    """The columns that the detector in `script` calls drifted, for windows drawn as those of seed 0 of the stream are."""
    pool, rows, autocorrelated = pool_of(stream[0]), stream[2], stream[1] == "autocorrelated"
    rng = np.random.default_rng([0, rows, autocorrelated])
    blocks = draw_reference(pool, rows, rng, autocorrelated=autocorrelated)
    draw_baseline(pool, rows, rng, autocorrelated=autocorrelated)
    windows = [draw_window(pool, rows, rng, autocorrelated=autocorrelated) for _ in range(sampled)]
    frame = _plain(pool, pool.schema.names)
    with tempfile.TemporaryDirectory(prefix="everloop-bench-") as folder:
        frame.iloc[np.concatenate(blocks)].to_parquet(Path(folder) / "reference.parquet")
        marked = [frame.iloc[window].assign(__window=position) for position, window in enumerate(windows)]
        pd.concat(marked).to_parquet(Path(folder) / "windows.parquet")
        numeric = [feature.name for feature in pool.schema.numeric]
        roles = {"numeric": numeric, "categorical": [name for name in pool.schema.names if name not in numeric]}
        (Path(folder) / "columns.json").write_text(json.dumps(roles))
        command = [str(python), str(DETECTORS / script), folder]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script} failed on {stream}: {done.stderr.strip()[-1500:]}")
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _plain(pool: Pool, names: Sequence[str]) -> pd.DataFrame:
    """The columns as any tool reads them: numbers as float64, categories as text with None for absent."""
    categorical = {feature.name for feature in pool.schema.categorical}
    return pd.DataFrame(
        {
            name: pool.frame[name].map(str, na_action="ignore").astype(object)
            if name in categorical
            else pool.frame[name].astype(float)
            for name in names
        }
    )


def _summary(settings: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The worst setting counts for everloop; for the others, the mean over the settings."""
    settings = list(settings)

    def over(name: str, how: Any) -> float | None:
        values = [setting[name] for setting in settings if name in setting]
        return float(how(values)) if values else None

    return {
        "worst_false_retrains_per_1000": over("false_retrains_per_1000", max),
        "worst_alarmed_share": over("alarmed_share", max),
        "mean_alarmed_share": over("alarmed_share", np.mean),
        "whylogs_alarmed_share": over("whylogs_alarmed_share", np.mean),
        "evidently_alarmed_share": over("evidently_alarmed_share", np.mean),
        "evidently_data_set_share": over("evidently_data_set_share", np.mean),
        "settings": settings,
    }


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
