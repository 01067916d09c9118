"""How much a model leans on each feature; it weights the features when their drift is summed into one score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from everloop.domain.metrics import Predictions, row_losses
from everloop.domain.spec import MetricName


def permutation_importance(
    predict: Callable[[pd.DataFrame], Predictions],
    features: pd.DataFrame,
    truth: Sequence[object] | np.ndarray | pd.Series,
    metric: MetricName,
    *,
    seed: int = 0,
    repeats: int = 2,
    max_rows: int = 500,
) -> dict[str, float]:
    """The share of each column of `features`, 0 to 1 with sum 1, in what the model knows; `truth` (n,) are the labels.

    A column's importance is the rise of the mean loss when its values are shuffled among at most `max_rows` rows, `repeats`
    times (Breiman 2001; Fisher, Rudin and Dominici 2019). A fall is chance and counts 0; all 0 makes equal shares. Columns
    that carry the same knowledge share it, and each looks less important than it is.
    """
    rng = np.random.default_rng(seed)
    labels = np.asarray(truth)
    if len(features) > max_rows:
        chosen = np.sort(rng.choice(len(features), max_rows, replace=False))
        features, labels = features.iloc[chosen], labels[chosen]
    names = [str(name) for name in features.columns]
    if len(features) < 2 or not names:
        return dict.fromkeys(names, 1 / max(len(names), 1))
    base = float(row_losses(metric, labels, predict(features)).mean())
    copies, repeated = pd.concat([features] * repeats, ignore_index=True), np.tile(labels, repeats)
    rises = {}
    for name, column in zip(names, features.columns, strict=True):
        orders = np.concatenate([rng.permutation(len(features)) for _ in range(repeats)])
        shuffled = copies.assign(**{column: features[column].iloc[orders].set_axis(copies.index)})
        rises[name] = max(float(row_losses(metric, repeated, predict(shuffled)).mean()) - base, 0.0)
    total = sum(rises.values())
    return {name: rise / total if total else 1 / len(names) for name, rise in rises.items()}
