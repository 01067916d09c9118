"""Run by an environment that has whylogs[viz]: its own drift scores over windows, as JSON.

    python whylogs_scores.py FOLDER        # holds reference.parquet and windows.parquet (column __window)

Prints for each window which columns are in its category DRIFT, by its default thresholds.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

os.environ["WHYLOGS_NO_ANALYTICS"] = "True"

import pandas as pd
import whylogs as why
from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores


def main(folder: Path) -> None:
    """Print the drifted columns of all windows."""
    warnings.simplefilter("ignore")
    reference = why.log(pd.read_parquet(folder / "reference.parquet")).view()
    drifted = []
    for _, rows in pd.read_parquet(folder / "windows.parquet").groupby("__window"):
        window = why.log(rows.drop(columns="__window")).view()
        scores = calculate_drift_scores(target_view=window, reference_view=reference, with_thresholds=True)
        drifted.append([name for name, score in scores.items() if score and score["drift_category"] == "DRIFT"])
    print(json.dumps(drifted))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
