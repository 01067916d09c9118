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
    definition = DataDefinition(numerical_columns=columns["numeric"], categorical_columns=columns["categorical"])
    reference = pd.read_parquet(folder / "reference.parquet")
    known = Dataset.from_pandas(reference.iloc[:MOST_ROWS], data_definition=definition)
    drifted = []
    for _, rows in pd.read_parquet(folder / "windows.parquet").groupby("__window"):
        window = Dataset.from_pandas(rows.drop(columns="__window"), data_definition=definition)
        metrics = Report([DataDriftPreset()]).run(window, known).dict()["metrics"]
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
