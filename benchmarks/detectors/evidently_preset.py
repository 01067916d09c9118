"""Run by an environment that has Evidently: its default drift preset over windows, as JSON.

    python evidently_preset.py FOLDER      # holds reference.parquet, windows.parquet (column __window) and columns.json

Prints for each window which columns drifted.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

MOST_ROWS = 5000  # of the reference: the preset takes raw rows and its time grows with them


def main(folder: Path) -> None:
    """Print the drifted columns of all windows."""
    warnings.simplefilter("ignore")
    columns = json.loads((folder / "columns.json").read_text())
    reference = pd.read_parquet(folder / "reference.parquet")
    known = reference.sample(min(MOST_ROWS, len(reference)), random_state=0).sort_index()
    drifted = []
    for _, rows in pd.read_parquet(folder / "windows.parquet").groupby("__window"):
        # it refuses a column that is empty on either side
        both = [name for name in known if known[name].notna().any() and rows[name].notna().any()]
        definition = DataDefinition(
            numerical_columns=[name for name in columns["numeric"] if name in both],
            categorical_columns=[name for name in columns["categorical"] if name in both],
        )
        sides = (Dataset.from_pandas(side[both], data_definition=definition) for side in (rows, known))
        metrics = Report([DataDriftPreset()]).run(*sides).dict()["metrics"]
        counted = next(metric["value"]["count"] for metric in metrics if "DriftedColumnsCount" in metric["metric_name"])
        columns_drifted = [
            metric["config"]["column"]
            for metric in metrics
            if "ValueDrift" in metric["metric_name"] and is_drift(metric)
        ]
        assert len(columns_drifted) == counted, (columns_drifted, counted)
        drifted.append(columns_drifted)
    print(json.dumps(drifted))


def is_drift(metric: dict[str, Any]) -> bool:
    """Whether the column drifted: a p-value below its threshold, a distance at or above it."""
    method, threshold = metric["config"]["method"], metric["config"]["threshold"]
    value = float(metric["value"])
    return value < threshold if "p_value" in method else value >= threshold


if __name__ == "__main__":
    main(Path(sys.argv[1]))
