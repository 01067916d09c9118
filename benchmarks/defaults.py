"""How the shipped retraining policy was chosen: on simulated streams and the keystroke data, never on bike or bank.

    python -m benchmarks.defaults [--json] [--draws 20] [--processes 2]

Each policy of a grid is replayed on each stream (50 windows after the first 20 % of the rows), for several sizes of the
holdout. One stream is chance, so each kind of stream is drawn twenty times. The share of the gain of a kind is what the policy
gains over never retraining, summed over its streams, over what the better of retraining every window on all or on recent
history gains; a kind where that is less than 2 % of the loss does not count. Chosen is the policy with the largest mean share
of the gain among those that need at most 30 % of the retrainings for every kind; equal within a per cent, the one with fewer.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from statistics import mean
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "WHYLOGS_NO_ANALYTICS": "True"}

import pandas as pd

from benchmarks.streams import stream, stream_names
from everloop.adapters.fit_cache import FitCache, history_folder, remembered_configuration
from everloop.domain.frames import derive_schema
from everloop.domain.metrics import score
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.replay_fits import Subject
from everloop.domain.replay_policy import replay_policy
from everloop.domain.replay_strategies import always_retrain, never_retrain
from everloop.domain.replay_timeline import ReplayPlan, lay_out
from everloop.domain.replay_training import Trainer
from everloop.domain.search import search_configurations
from everloop.domain.spec import ModelSpec
from everloop.domain.splits import split_by_time
from everloop.settings import settings

MOST_RETRAINS, PAYS = 0.30, 0.02
HOLDOUTS = (200, 300)
GRID: dict[str, tuple[Any, ...]] = {
    "max_loss_increase": (0.05, 0.1, 0.2),
    "persistence": ("1 of 1", "2 of 3"),
    "on_growth": (0.25, 0.35, 0.5, 0.75),
}


def measure(draws: int, processes: int) -> dict[tuple[str, int], dict[int, dict[str, Any]]]:
    """For each stream what retraining gains and, by holdout and policy, the share of the gain and of the retrainings."""
    names = stream_names(draws)
    with ProcessPoolExecutor(processes) as executor:
        return dict(zip(names, executor.map(measure_stream, names), strict=True))


def measure_stream(name: tuple[str, int]) -> dict[int, dict[str, Any]]:
    """What each policy of the grid comes to on one stream, by rows of the holdout."""
    spec, rows = stream(*name)
    policies = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    return {rows_held: replay_stream(with_holdout(spec, rows_held), rows, policies) for rows_held in HOLDOUTS}


def with_holdout(spec: ModelSpec, rows: int) -> ModelSpec:
    """`spec` with another holdout; one that sets its own because its rows are few keeps it."""
    if "holdout_rows" in spec.gates.model_fields_set:
        return spec
    return spec.model_copy(update={"gates": spec.gates.model_copy(update={"holdout_rows": rows})})


def replay_stream(spec: ModelSpec, rows: pd.DataFrame, policies: list[dict[str, Any]]) -> dict[str, Any]:
    """What each policy comes to on one stream, beside never and always retraining."""
    timeline, schema = lay_out(rows, spec.time, ReplayPlan()), derive_schema(rows, spec)
    folder, first = history_folder(settings().home, spec, rows), rows.iloc[: timeline.initial]
    configuration = remembered_configuration(
        folder, spec, timeline.initial, lambda: search_configurations(spec, split_by_time(first, spec), schema).best
    )
    subject, metric = Subject(rows, spec, schema, configuration), spec.gates.metric
    with FitCache(subject, folder) as fits:
        trainer = Trainer(subject, fits)
        start = trainer.first(timeline.initial)
        never = score(metric, never_retrain(timeline, start).losses)
        runs = [always_retrain(timeline, start, fits, history=history) for history in ("all", "recent")]
        always = [score(metric, run.losses) for run in runs]
        outcomes = []
        for changes in policies:
            run = replay_policy(timeline, trainer, start, MonitorSpec(**changes))
            found = score(metric, run.losses)
            outcomes.append(
                {
                    "policy": changes,
                    "metric": found,
                    "retrains": run.retrains / runs[0].retrains,
                    "rejected": run.rejected,
                }
            )
    return {"never": never, "all": always[0], "recent": always[1], "policies": outcomes}


def choose(found: dict[tuple[str, int], dict[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row a holdout and policy over all streams, the chosen one first."""
    kinds: dict[str, list[dict[int, dict[str, Any]]]] = {}
    for (kind, _), by_holdout in found.items():
        kinds.setdefault(kind, []).append(by_holdout)
    rows = [
        row
        for rows_held in HOLDOUTS
        for row in _rows({kind: [by[rows_held] for by in drawn] for kind, drawn in kinds.items()}, rows_held)
    ]
    return sorted(
        rows,
        key=lambda row: (row["most retrains"] > MOST_RETRAINS, -round(row["mean gain"], 2), row["mean retrains"]),
    )


def _rows(found: dict[str, list[dict[str, Any]]], rows_held: int) -> list[dict[str, Any]]:
    pays = [kind for kind, drawn in found.items() if _to_gain(drawn) > PAYS * sum(stream["never"] for stream in drawn)]
    rows = []
    for at, outcome in enumerate(next(iter(found.values()))[0]["policies"]):
        gains = {
            kind: sum(stream["never"] - stream["policies"][at]["metric"] for stream in found[kind])
            / _to_gain(found[kind])
            for kind in pays
        }
        retrains = {kind: mean(stream["policies"][at]["retrains"] for stream in drawn) for kind, drawn in found.items()}
        rows.append(
            {
                "holdout_rows": rows_held,
                **outcome["policy"],
                "mean gain": mean(gains.values()),
                "worst gain": min(gains.values()),
                "mean retrains": mean(retrains.values()),
                "most retrains": max(retrains.values()),
                "rejected": sum(stream["policies"][at]["rejected"] for drawn in found.values() for stream in drawn),
                **{f"gain: {kind}": gain for kind, gain in gains.items()},
                **{f"retrains: {kind}": share for kind, share in retrains.items()},
            }
        )
    return rows


def _to_gain(drawn: list[dict[str, Any]]) -> float:
    """What retraining every window gains over never, summed over streams of one kind."""
    return sum(stream["never"] - min(stream["all"], stream["recent"]) for stream in drawn)


def main() -> None:
    """Print what each stream has to gain, and the policies, the chosen one first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--draws", type=int, default=20, help="streams of each kind; default: 20")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args()
    found = measure(wanted.draws, wanted.processes)
    rows = choose(found)
    if wanted.json:
        streams = {f"{kind}, {seed}": by_holdout for (kind, seed), by_holdout in found.items()}
        print(json.dumps({"chosen": rows[0], "policies": rows, "streams": streams}, indent=2))
        return
    print(f"{'stream':<40}{'never':>9}{'all':>9}{'recent':>9}")
    for (kind, seed), by_holdout in found.items():
        measured = by_holdout[HOLDOUTS[-1]]
        print(f"{f'{kind}, {seed}':<40}{measured['never']:>9.4f}{measured['all']:>9.4f}{measured['recent']:>9.4f}")
    shown = [key for key in rows[0] if ": " not in key]
    print("\n" + "  ".join(shown))
    for row in rows:
        print("  ".join(f"{row[key]:.3f}" if isinstance(row[key], float) else f"{row[key]}" for key in shown))


if __name__ == "__main__":
    main()
