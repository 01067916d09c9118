"""Evaluate: challenger, champion and a trivial model on the same holdout, row by row."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from everloop.adapters.registry import Version
from everloop.domain.gates import HoldoutScores
from everloop.domain.metrics import Predictions, row_losses, score, trivial_predictions
from everloop.domain.pipelines import predict
from everloop.domain.schema import canonical_category
from everloop.domain.spec import ModelSpec
from everloop.domain.splits import is_after
from tasks.fit import Challenger
from tasks.prepare import Prepared
from tasks.step import step
from tasks.wiring import registry

log = logging.getLogger("everloop.evaluate")


@dataclass(frozen=True)
class Evaluation:
    """What the challenger said about the holdout, and the losses of all contenders on it."""

    predicted: Predictions
    scores: HoldoutScores


@step
def evaluate(spec: ModelSpec, data: Prepared, challenger: Challenger) -> Evaluation:
    """The losses of challenger, champion and trivial model on each row of the holdout."""
    holdout = data.split.holdout
    metric, truth = spec.gates.metric, holdout[spec.target].to_numpy()
    predicted = predict(challenger.pipeline, holdout, data.schema)
    trivial = trivial_predictions(metric, challenger.rows[spec.target].to_numpy(), len(holdout), data.schema.classes)
    champion = registry().champion(spec.name)
    losses, fresh = _score_champion(spec, data, champion) if champion else (None, None)
    scores = HoldoutScores(
        challenger=row_losses(metric, truth, predicted),
        baseline=row_losses(metric, truth, trivial),
        champion=losses,
        fresh=fresh,
        champion_version=champion.number if champion else None,
        slices={name: np.array([canonical_category(value) for value in holdout[name]]) for name in spec.gates.slices},
    )
    beside = f", champion v{scores.champion_version} {score(metric, losses):.4g}" if losses is not None else ""
    log.info(
        "%s of the challenger %.4g%s on %d holdout rows", metric, score(metric, scores.challenger), beside, len(holdout)
    )
    return Evaluation(predicted, scores)


def _score_champion(spec: ModelSpec, data: Prepared, champion: Version) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The champion's losses on the holdout and which rows are fresh to it; nothing if it needs columns that are gone."""
    holdout = data.split.holdout
    manifest, pipeline = registry().load(champion)
    if not set(manifest.row_schema.names) <= set(holdout.columns):
        return None, None
    predicted = predict(pipeline, holdout, manifest.row_schema)
    fresh = is_after(holdout, manifest.trained_until, time=spec.time, offset=len(data.split.known))
    return row_losses(spec.gates.metric, holdout[spec.target].to_numpy(), predicted), fresh.to_numpy()
