"""Windows from a change to the decision to retrain, by kind and size of the change.

    python -m benchmarks.power [--json] [--quick] [--trials 12] [--processes 2]

The streams, references and policy are those of benchmarks/false_alarms.py; two windows pass without change, then one column
changes for good in every window: its mean by .1, .25, .5 standard deviations, 5 or 10 points of the shares of two
categories, 2 or 5 % nulls, 0.5 or 1 % of a category never seen. The loss changes by itself: rows whose loss is among the
worst fifth are errors, so the error rate is .20 with the dependence of real errors, and rises to .25, in matured windows
of 2,000, of a version that was validated on the shipped default's holdout.

Figures are medians over trials; `within_2` is the share seen in at most two windows; what is not seen within
the horizon counts as one window more. `windows_to_shift_025sd` is the worst median on independent streams of windows of
1,000 rows and more, `windows_to_loss_5_points` that of losses on independent streams.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "WHYLOGS_NO_ANALYTICS": "True"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd

from benchmarks.no_change import POOLS, Pool, draw_window
from benchmarks.watching import HOLDOUTS, POLICY, Reference, Watch, draw_baseline, draw_reference, learn, only, profile
from everloop.adapters.profiles import profile_rows, summarize_profile
from everloop.domain.metrics import summarize
from everloop.domain.schema import RowSchema
from everloop.domain.summaries import ProfileSummary

ROWS = (200, 1000, 10_000)
LOSS_ROWS = 2000
BEFORE, HORIZON = 2, 6  # windows before the change, and after it
LOSS_PAIRS = (0.20, 0.25)
CHANGED = {"bike": ("temp", "weathersit"), "bank": ("age", "job")}  # the number and the category that change

Change = Callable[[pd.Series, np.random.Generator], pd.Series]


@dataclass(frozen=True)
class Job:
    """The trials of every change on one stream with windows of one size; rows None: those of the loss."""

    pool: str
    autocorrelated: bool
    rows: int | None
    trials: int


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="three trials of each change")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args()
    trials = 3 if wanted.quick else wanted.trials
    jobs = [
        Job(pool, autocorrelated, rows, trials)
        for pool in POOLS
        for autocorrelated in (False, True)
        for rows in (None, *ROWS)
    ]
    settings: list[dict[str, Any]] = []
    with ProcessPoolExecutor(wanted.processes) as executor:
        for job, found in zip(jobs, executor.map(run_job, jobs), strict=True):
            print(job, file=sys.stderr)
            settings += found
    figures = {
        "windows_to_shift_025sd": _worst(settings, "mean + .25 sd", least_rows=1000),
        "windows_to_loss_5_points": _worst(settings, "loss + 5 points", least_rows=LOSS_ROWS),
        "horizon": HORIZON,
        "settings": settings,
    }
    if wanted.json:
        print(json.dumps(figures))
        return
    for setting in settings:
        print(
            "  ".join(
                f"{value:>14}" if isinstance(value, str) else f"{name} {value:g}" for name, value in setting.items()
            )
        )
    print(f"windows_to_shift_025sd    {figures['windows_to_shift_025sd']}")
    print(f"windows_to_loss_5_points  {figures['windows_to_loss_5_points']}")


def run_job(job: Job) -> list[dict[str, Any]]:
    """The figures of one job, for each change and number of columns."""
    pool = POOLS[job.pool]()
    rng = np.random.default_rng([77, job.rows or 0, job.autocorrelated])
    if job.rows is None:
        waits = [_wait_for_loss(pool, job.autocorrelated, rng) for _ in range(50 * job.trials)]
        return [_figures(job, "loss + 5 points", LOSS_ROWS, 0, waits)]
    columns = (pool.narrow(), pool.schema.names)
    references = learn(
        pool,
        draw_reference(pool, job.rows, rng, autocorrelated=job.autocorrelated),
        draw_baseline(pool, job.rows, rng, autocorrelated=job.autocorrelated),
        columns,
    )
    waits_by: dict[tuple[str, int], list[int]] = {}
    for _ in range(job.trials):
        for name, waits in _wait_for_drift(pool, references, columns, job, rng).items():
            waits_by.setdefault(name, []).append(waits)
    return [_figures(job, name, job.rows, width, waits) for (name, width), waits in waits_by.items()]


def changes_of(pool: Pool) -> dict[str, tuple[str, Change]]:
    """What may change: a name, the column, and how its values of a window become others."""
    number, category = CHANGED[pool.name]
    spread = float(pool.frame[number].std())
    first, second = pool.frame[category].value_counts().index[:2]
    found: dict[str, tuple[str, Change]] = {}
    for size in (0.1, 0.25, 0.5):
        found[f"mean + {size:g} sd".replace("0.", ".")] = (number, _shifted(size * spread))
    for points in (0.05, 0.1):
        share = points / float((pool.frame[category] == first).mean())
        found[f"share + {points:.0%}"] = (category, _replaced(share, second, of=first))
    for share in (0.02, 0.05):
        found[f"nulls + {share:.0%}"] = (number, _replaced(share, np.nan))
    for share in (0.005, 0.01):
        found[f"unseen {share:.1%}"] = (category, _replaced(share, "77"))
    return found


def _shifted(by: float) -> Change:
    return lambda values, _: values + by


def _replaced(share: float, new: Any, *, of: Any = None) -> Change:
    """A share of the values (those equal to `of`, if given) become `new`."""

    def change(values: pd.Series, rng: np.random.Generator) -> pd.Series:
        hit = rng.random(len(values)) < share
        if of is not None:
            hit &= (values == of).to_numpy()
        return values.astype(float if isinstance(new, float) else object).mask(hit, new)

    return change


def _wait_for_drift(
    pool: Pool,
    references: list[Reference],
    columns: tuple[tuple[str, ...], ...],
    job: Job,
    rng: np.random.Generator,
) -> dict[tuple[str, int], int]:
    """Windows until each change was decided upon, by its name and the number of columns.

    All changes are made to the same windows: only the changed column is profiled anew.
    """
    assert job.rows is not None
    changes = changes_of(pool)
    waiting = {
        (name, len(names)): Watch(reference, POLICY)
        for name in changes
        for names, reference in zip(columns, references, strict=True)
    }
    waits = dict.fromkeys(waiting, HORIZON + 1)
    for window in range(1 - BEFORE, HORIZON + 1):
        rows = draw_window(pool, job.rows, rng, autocorrelated=job.autocorrelated)
        same = summarize_profile(profile(pool, rows))
        for name, (column, change) in changes.items():
            summary = same if window < 1 else _with_change(same, pool, rows, column, change, rng)
            for names in columns:
                watch = waiting.get((name, len(names)))
                if watch is not None and watch.judge(only(summary, names), None).is_fired and window >= 1:
                    waits[name, len(names)] = window
                    del waiting[name, len(names)]
        if not waiting:
            break
    return waits


def _with_change(
    same: ProfileSummary, pool: Pool, rows: np.ndarray, column: str, change: Change, rng: np.random.Generator
) -> ProfileSummary:
    schema = RowSchema(features=tuple(feature for feature in pool.schema.features if feature.name == column))
    changed = pd.DataFrame({column: change(pool.frame[column].iloc[rows], rng)})
    anew = summarize_profile(profile_rows(changed, schema))
    return ProfileSummary(same.rows, {**same.columns, column: anew.columns[column]})


def _wait_for_loss(pool: Pool, autocorrelated: bool, rng: np.random.Generator) -> int:
    """Windows until the rise of the error rate was decided upon, from its loss alone."""
    before, after = LOSS_PAIRS
    errors = (pool.losses > np.quantile(pool.losses, 1 - before)).astype(float)
    validated = summarize(errors[draw_window(pool, HOLDOUTS[0], rng, autocorrelated=autocorrelated)])
    watch = Watch(Reference(ProfileSummary(0), learn_nothing(), validated), POLICY)
    for window in range(1 - BEFORE, HORIZON + 1):
        losses = errors[draw_window(pool, LOSS_ROWS, rng, autocorrelated=autocorrelated)]
        if window >= 1:
            losses = np.maximum(losses, rng.random(LOSS_ROWS) < (after - before) / (1 - before))
        if watch.judge(ProfileSummary(LOSS_ROWS), losses).is_fired and window >= 1:
            return window
    return HORIZON + 1


def learn_nothing() -> Any:
    """The calibration of a reference without columns."""
    from everloop.domain.calibration import calibrate

    return calibrate([], ProfileSummary(0), false_alarms=POLICY.false_alarms)


def _figures(job: Job, change: str, rows: int, columns: int, waits: list[int]) -> dict[str, Any]:
    return {
        "change": change,
        "data": job.pool,
        "stream": "autocorrelated" if job.autocorrelated else "independent",
        "rows": rows,
        "columns": columns,
        "trials": len(waits),
        "median_windows": float(np.median(waits)),
        "within_2": float(np.mean(np.array(waits) <= 2)),
        "within_horizon": float(np.mean(np.array(waits) <= HORIZON)),
    }


def _worst(settings: list[dict[str, Any]], change: str, *, least_rows: int) -> float:
    return max(
        setting["median_windows"]
        for setting in settings
        if setting["change"] == change and setting["stream"] == "independent" and setting["rows"] >= least_rows
    )


if __name__ == "__main__":
    main()
