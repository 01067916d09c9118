"""Export: ONNX serves if it answers the holdout as the fitted pipeline does, and else it is said why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from everloop.adapters.onnx_runtime import OnnxModel
from everloop.domain.configuration import Configuration
from everloop.domain.errors import ConversionFailed
from everloop.domain.frames import batch_of, conform, derive_schema
from everloop.domain.gates import HoldoutScores
from everloop.domain.metrics import Predictions
from everloop.domain.pipelines import build_pipeline, predict
from everloop.domain.splits import split_by_time
from tasks import export as exporting
from tasks.evaluate import Evaluation
from tasks.export import Exported, export
from tasks.fit import Challenger
from tasks.prepare import Prepared
from tests.factories import BOOSTING, make_rows, make_spec


class Trained:
    """A challenger with its data and what it says about the holdout; `scale` falsifies that."""

    def __init__(self, *, scale: float = 1.0) -> None:
        spec = make_spec(gates={"metric": "mae", "worst_allowed": 100.0, "holdout_rows": 30, "min_holdout_rows": 20})
        rows = make_rows(120)
        schema, split = derive_schema(rows, spec), split_by_time(rows, spec)
        configuration = Configuration(estimator=BOOSTING["regression"], parameters={"max_iter": 10})
        pipeline = build_pipeline(configuration, schema, seed=0)
        pipeline.fit(conform(split.known, schema), split.known["cnt"].to_numpy())
        said = Predictions(predict(pipeline, split.holdout, schema).values * scale)
        losses = np.zeros(len(split.holdout))
        self.data = Prepared(split=split, schema=schema)
        self.challenger = Challenger(pipeline, configuration, split.known)
        self.evaluation = Evaluation(said, HoldoutScores(challenger=losses, baseline=losses))

    def export(self) -> Exported:
        """What the step makes of it."""
        step: Any = export
        exported: Exported = step.fn(self.data, self.challenger, self.evaluation)
        return exported


def test_an_export_that_answers_alike_serves() -> None:
    """It is handed on with the proof."""
    trained = Trained()
    exported = trained.export()
    assert exported.parity.passed
    assert exported.parity.rows == 30
    assert exported.onnx is not None
    holdout = trained.data.split.holdout
    answers = OnnxModel(exported.onnx, trained.data.schema).predict(batch_of(holdout, trained.data.schema))
    np.testing.assert_allclose(
        answers.values, trained.evaluation.predicted.values, atol=exported.parity.allowed_difference
    )


def test_an_export_that_answers_otherwise_is_not_handed_on() -> None:
    """The fitted pipeline serves; the report says how far they are apart."""
    exported = Trained(scale=1.01).export()
    assert exported.onnx is None
    assert not exported.parity.passed
    assert exported.parity.reason.startswith("the largest difference on 30 holdout rows is ")


def test_a_pipeline_that_cannot_be_exported_serves_itself_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no failure of the training."""

    def refuse(*_: Any) -> bytes:
        raise ConversionFailed("no ONNX for Odd: it has no converter")

    monkeypatch.setattr(exporting, "export_onnx", refuse)
    exported = Trained().export()
    assert exported.onnx is None
    assert (exported.parity.passed, exported.parity.reason) == (False, "no ONNX for Odd: it has no converter")


def test_an_export_that_the_runtime_does_not_take_is_no_failure_of_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An operator may be newer than the runtime; the fitted pipeline serves then."""
    monkeypatch.setattr(exporting, "export_onnx", lambda *_: b"no model")
    exported = Trained().export()
    assert (exported.onnx, exported.parity.passed) == (None, False)
