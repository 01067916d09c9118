"""Export: the fitted pipeline as ONNX, and the proof that it answers alike."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from everloop.adapters.onnx_export import export_onnx
from everloop.adapters.onnx_runtime import answer_with
from everloop.domain.errors import ConversionFailed
from everloop.domain.frames import batch_of
from everloop.domain.manifest import RUNTIMES
from everloop.domain.parity import ParityReport, compare_answers, not_exported
from tasks.evaluate import Evaluation
from tasks.fit import Challenger
from tasks.prepare import Prepared
from tasks.step import step

log = logging.getLogger("everloop.export")


@dataclass(frozen=True)
class Exported:
    """The ONNX model that may serve, if any, and how it compares with the fitted pipeline."""

    onnx: bytes | None
    parity: ParityReport


@step
def export(data: Prepared, challenger: Challenger, evaluation: Evaluation) -> Exported:
    """The challenger as ONNX if it answers the holdout as the fitted pipeline does; else why that one serves."""
    try:
        model = export_onnx(challenger.pipeline, data.schema)
        answers = answer_with(model, batch_of(data.split.holdout, data.schema), data.schema)
        parity = compare_answers(evaluation.predicted, answers)
    except ConversionFailed as exc:
        model, parity = b"", not_exported(str(exc))
    log.info("%s serves: %s", RUNTIMES[parity.runtime], parity.reason)
    return Exported(model if parity.passed else None, parity)
