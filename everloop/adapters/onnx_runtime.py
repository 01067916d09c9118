"""An exported model in memory (ONNX Runtime). It needs neither pandas nor scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from everloop.domain.batch import Batch
from everloop.domain.errors import ConversionFailed
from everloop.domain.metrics import Predictions
from everloop.domain.schema import RowSchema

NUMERIC, CATEGORICAL, SCORES = "numeric", "categorical", "scores"


def answer_with(model: bytes, batch: Batch, schema: RowSchema) -> Predictions:
    """What an exported model says about the rows of `batch`.

    Raises:
        ConversionFailed: ONNX Runtime does not take it, an operator is newer than it for example.
    """
    try:
        return OnnxModel(model, schema).predict(batch)
    except Exception as exc:  # its errors have no common class; each means that the fitted model serves
        raise ConversionFailed(f"ONNX Runtime does not take the export: {str(exc)[:300]}") from exc


class OnnxModel:
    """Scores of an exported model; one thread, so that workers do not fight over the cores."""

    def __init__(self, model: Path | bytes, schema: RowSchema) -> None:
        """Load the model in a file, or one exported a moment ago.

        Raises:
            onnxruntime's errors: it is damaged, or holds an operator that ONNX Runtime does not know.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = tuple(found.name for found in self._session.get_inputs())
        self._classes = np.array(schema.classes, dtype=object)
        self._schema = schema

    def predict(self, batch: Batch) -> Predictions:
        """Predictions for the n rows of `batch`."""
        feeds = {name: batch.numeric if name == NUMERIC else batch.categorical for name in self._inputs}
        scores = self._session.run((SCORES,), feeds)[0]
        if not len(self._classes):
            return Predictions(scores[:, 0])
        return Predictions(self._classes[scores.argmax(axis=1)], scores, self._schema.classes)
