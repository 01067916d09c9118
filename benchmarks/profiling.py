"""What a profile costs: ours beside `why.log`, Evidently's drift preset and a summary by pandas, on the same frames.

    python -m benchmarks.profiling [--json] [--rounds 5] [--evidently-rounds 2] [--keep]

- mixed: 1M rows × 8 columns as sources bring them: floats with and without nulls, nullable whole numbers, float32, integer
  codes, text with nulls, a category, booleans; wide: 200k rows × 50 floats
- pandas: count, nulls, mean, std, min, max and quartiles of numbers; value counts, distinct values and nulls of categories
- Evidently: the default `DataDriftPreset` on a reference and a current mixed frame, in an environment of its own (made by
  the bench, a minute; --keep leaves it for the next time). Only the preset's run is timed, not its import or reading. Ours
  for the same: both profiles, their summaries and all drift tests
- 10M rows come in chunks that are made as they are asked for, in a process of its own; making them is not timed

The contestants take turns within a round, every second round backwards; what is reported are medians of the rounds' ratios.
All run with one thread. `time_growth_10m_over_1m` is CPU time per row at 10M by that at 1M.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "WHYLOGS_NO_ANALYTICS": "True"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd

from benchmarks.isolated import ask, asked_isolated, isolated_python
from everloop.adapters.profiles import profile_chunks, profile_rows, summarize_profile
from everloop.domain.drift import compare_profiles
from everloop.domain.schema import FeatureSchema, RowSchema

MIXED_ROWS, WIDE_ROWS, WIDE_COLUMNS = 1_000_000, 200_000, 50
CHUNK_ROWS = 250_000
NUMBERS = ("amount", "balance", "age", "temperature")
EVIDENTLY = ["evidently>=0.7", "pandas<3", "pyarrow"]  # 0.7.23 cannot be imported with pandas 3
PRESET = """
import json, sys, time, warnings
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
warnings.simplefilter("ignore")
reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
for _ in sys.stdin:
    started = time.perf_counter()
    Report([DataDriftPreset()]).run(current, reference).dict()
    print(json.dumps({"seconds": time.perf_counter() - started}))
"""

Seconds = dict[str, float]
Contestants = dict[str, Callable[[], object]]


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds against whylogs and pandas, and of 1M and 10M rows"
    )
    parser.add_argument("--evidently-rounds", type=int, default=2, help="rounds against Evidently; 0 leaves it out")
    parser.add_argument("--keep", action="store_true", help="keep Evidently's environment for the next time")
    parser.add_argument("--scale", type=int, help=argparse.SUPPRESS)  # the process that profiles 1M and 10M rows
    wanted = parser.parse_args()
    if wanted.scale:
        print(json.dumps(_scale(wanted.scale)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that Evidently's environment is gone in any case
    with contextlib.redirect_stdout(sys.stderr):
        report = _scale_apart(wanted.rounds) | _against_whylogs_and_pandas(wanted.rounds)
        if wanted.evidently_rounds:
            report |= _against_evidently(wanted.evidently_rounds, keep=wanted.keep)
    print(json.dumps(report) if wanted.json else "\n".join(f"{name:34} {value}" for name, value in report.items()))


def mixed_frame(rows: int, rng: np.random.Generator) -> tuple[pd.DataFrame, RowSchema]:
    """Rows with eight columns of the dtypes that files and databases bring."""
    cities = np.array([f"city {number}" for number in range(50)], dtype=object)[rng.integers(0, 50, rows)]
    cities[rng.random(rows) < 0.02] = None
    balance = rng.normal(size=rows)
    balance[rng.random(rows) < 0.05] = np.nan
    age = pd.array(rng.integers(18, 90, rows), dtype="Int64")
    age[rng.random(rows) < 0.03] = pd.NA
    frame = pd.DataFrame(
        {
            "amount": rng.lognormal(3, 1, rows),
            "balance": balance,
            "age": age,
            "temperature": rng.normal(15, 8, rows).astype("float32"),
            "shop": rng.integers(1, 300, rows),
            "city": pd.Series(cities, dtype="str"),
            "plan": pd.Categorical.from_codes(rng.integers(0, 3, rows), pd.Index(["basic", "free", "pro"])),
            "active": rng.random(rows) < 0.7,
        }
    )
    return frame, _schema(frame, NUMBERS)


def _wide_frame(rng: np.random.Generator) -> tuple[pd.DataFrame, RowSchema]:
    frame = pd.DataFrame({f"x{at}": rng.normal(size=WIDE_ROWS) for at in range(WIDE_COLUMNS)})
    return frame, _schema(frame, tuple(frame))


def _schema(frame: pd.DataFrame, numbers: tuple[str, ...]) -> RowSchema:
    return RowSchema(
        features=tuple(
            FeatureSchema(name=name, role="numeric", type="number", nullable=True)
            if name in numbers
            else FeatureSchema(name=name, role="categorical", type="text", nullable=True)
            for name in frame
        )
    )


def _against_whylogs_and_pandas(rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(4)
    ratios: dict[str, Any] = {}
    for name, (frame, schema) in {"mixed": mixed_frame(MIXED_ROWS, rng), "wide": _wide_frame(rng)}.items():
        turns = _take_turns(_contestants(frame, schema), rounds, name)
        ratios[f"speedup_over_whylogs_{name}"] = _ratio(turns, "whylogs", "ours")
        ratios[f"ratio_to_pandas_{name}"] = _ratio(turns, "ours", "pandas")
        ratios |= {f"seconds_{who}_{name}": round(median(turn[who] for turn in turns), 3) for who in turns[0]}
    ratios["ratio_to_pandas"] = max(ratios["ratio_to_pandas_mixed"], ratios["ratio_to_pandas_wide"])
    return ratios


def _contestants(frame: pd.DataFrame, schema: RowSchema) -> Contestants:
    import whylogs as why

    return {
        "ours": lambda: profile_rows(frame, schema),
        "whylogs": lambda: why.log(frame).view().serialize(),
        "pandas": lambda: _summarize_by_pandas(frame, schema),
    }


def _summarize_by_pandas(frame: pd.DataFrame, schema: RowSchema) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for feature in schema.features:
        column = frame[feature.name]
        if feature.role == "numeric":
            moments = (column.mean(), column.std(), column.min(), column.max(), column.quantile([0.25, 0.5, 0.75]))
            found.append((column.count(), column.isna().sum(), *moments))
        else:
            found.append((column.value_counts(), column.nunique(), column.isna().sum()))
    return found


def _against_evidently(rounds: int, *, keep: bool) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    (reference, schema), (current, _) = mixed_frame(MIXED_ROWS, rng), mixed_frame(MIXED_ROWS, rng)

    def compare() -> None:
        summaries = [summarize_profile(profile_rows(frame, schema)) for frame in (reference, current)]
        compare_profiles(summaries[0], summaries[1], min_rows=200)

    _say("making an environment for Evidently …")
    with contextlib.ExitStack() as stack:
        python = stack.enter_context(isolated_python(EVIDENTLY, keep=keep))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="everloop-bench-")))
        paths = [folder / "reference.parquet", folder / "current.parquet"]
        for frame, path in zip((reference, current), paths, strict=True):
            frame.to_parquet(path)
        process = stack.enter_context(asked_isolated(python, PRESET, *map(str, paths)))
        turns = _take_turns(
            {"ours": compare}, rounds, "Evidently", told={"evidently": lambda: ask(process, "run")["seconds"]}
        )
    return {
        "speedup_over_evidently": _ratio(turns, "evidently", "ours"),
        "seconds_evidently": round(median(turn["evidently"] for turn in turns), 2),
        "seconds_ours_two_profiles_and_tests": round(median(turn["ours"] for turn in turns), 3),
    }


def _take_turns(
    contestants: Contestants, rounds: int, name: str, *, told: dict[str, Callable[[], float]] | None = None
) -> list[Seconds]:
    """The seconds of each contestant in each round, after one round that does not count; `told` ones time themselves."""

    def timed(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    clocks = {who: (lambda work=work: timed(work)) for who, work in contestants.items()} | (told or {})
    turns = []
    for position in range(-1, rounds):
        order = list(clocks)[:: -1 if position % 2 else 1]
        turn = {who: clocks[who]() for who in order}
        _say(f"{name}, round {position + 1} of {rounds}: " + ", ".join(f"{who} {turn[who]:.3f} s" for who in clocks))
        turns.append(turn)
    return turns[1:]


def _ratio(turns: list[Seconds], above: str, below: str) -> float:
    return round(median(turn[above] / turn[below] for turn in turns), 2)


def _scale_apart(rounds: int) -> dict[str, Any]:
    """`_scale` in a process of its own: nothing but chunks and sketches counts towards its peak."""
    command = [sys.executable, "-m", "benchmarks.profiling", "--scale", str(rounds)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).resolve().parent.parent
    )
    found: dict[str, Any] = json.loads(done.stdout)
    _say(f"10M rows: {found}")
    return found


def _scale(rounds: int) -> dict[str, Any]:
    """CPU time per row at 10M rows by that at 1M, which is profiled before and after, and the peak memory after each."""
    _profile_chunks(MIXED_ROWS // 2)
    small, large, growth = [], [], []
    peak_1m = 0.0
    for _ in range(rounds):
        before = _profile_chunks(MIXED_ROWS)
        peak_1m = peak_1m or _peak_mb()
        large.append(_profile_chunks(10 * MIXED_ROWS))
        small += [before, _profile_chunks(MIXED_ROWS)]
        growth.append(large[-1] / (10 * (small[-1] + small[-2]) / 2))
    return {
        "time_growth_10m_over_1m": round(median(growth), 3),
        "peak_mb_10m": round(_peak_mb(), 1),
        "peak_mb_1m": round(peak_1m, 1),
        "cpu_seconds_1m_in_chunks": round(median(small), 3),
        "cpu_seconds_10m_in_chunks": round(median(large), 3),
    }


def _profile_chunks(rows: int) -> float:
    """The CPU seconds of profiling `rows` rows in chunks, without those of making them."""
    rng, making = np.random.default_rng(6), 0.0
    schema = mixed_frame(2, rng)[1]

    def chunks() -> Iterator[pd.DataFrame]:
        nonlocal making
        for _ in range(rows // CHUNK_ROWS):
            started = time.process_time()
            chunk = mixed_frame(CHUNK_ROWS, rng)[0]
            making += time.process_time() - started
            yield chunk

    started = time.process_time()
    profile = profile_chunks(chunks(), schema)
    seconds = time.process_time() - started - making
    found = summarize_profile(profile).rows
    if found != rows:
        raise SystemExit(f"the profile speaks of {found:,} rows, not of {rows:,}")
    return seconds


def _peak_mb() -> float:
    """The largest resident size of this process since it began: VmHWM, which getrusage would mix with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


if __name__ == "__main__":
    main()
