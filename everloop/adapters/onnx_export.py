"""Export a fitted pipeline to ONNX with scikit-learn's converters (skl2onnx)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from everloop.adapters.onnx_runtime import CATEGORICAL, NUMERIC, SCORES
from everloop.domain.errors import ConversionFailed
from everloop.domain.schema import RowSchema, canonical_category

log = logging.getLogger("everloop.onnx")


def export_onnx(pipeline: Any, schema: RowSchema) -> bytes:
    """An ONNX model that takes a `Batch` and gives the pipeline's scores.

    Inputs: `numeric` float32 (n, k) and `categorical` text (n, m), each left out if the schema has no such feature.
    Output `scores`, float32: (n, 1) predictions of a regression, or (n, classes) probabilities in the order of
    `schema.classes`; one that the pipeline has never seen has probability 0.

    Raises:
        ConversionFailed: there is no converter for a step, or it fails; the message says which.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    inputs: list[tuple[str, Any]] = []
    if schema.numeric:
        inputs.append((NUMERIC, FloatTensorType([None, len(schema.numeric)])))
    if schema.categorical:
        inputs.append((CATEGORICAL, StringTensorType([None, len(schema.categorical)])))
    positional = _by_position(pipeline, schema)
    try:
        with _whole_attributes():
            model = to_onnx(
                positional,
                initial_types=inputs,
                options={id(positional): {"zipmap": False}} if schema.classes else None,
            )
        _keep_scores(model, pipeline, schema)
        return bytes(model.SerializeToString())
    except Exception as exc:  # converters raise whatever they meet; each means the same: the fitted model serves
        log.debug("not exported", exc_info=True)
        raise ConversionFailed(f"no ONNX for {_title(pipeline)}: {type(exc).__name__}: {_first_line(exc)}") from exc


def _by_position(pipeline: Any, schema: RowSchema) -> Any:
    """The pipeline with its columns named by position: numeric features first, then categorical ones."""
    order = [feature.name for feature in (*schema.numeric, *schema.categorical)]
    prepare = copy.copy(pipeline.named_steps["prepare"])
    prepare.transformers_ = [
        (name, fitted, [order.index(column) for column in columns])
        for name, fitted, columns in prepare.transformers_
        if len(columns)
    ]
    positional = copy.copy(pipeline)
    positional.steps = [("prepare", prepare), *pipeline.steps[1:]]
    return positional


@contextmanager
def _whole_attributes() -> Iterator[None]:
    """Booleans in node attributes as 0 and 1: skl2onnx 1.20 writes booleans, which protobuf 7 refuses as integers."""
    import onnx.helper

    original = onnx.helper.make_attribute

    def make_attribute(key: str, value: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(value, list | tuple) and any(isinstance(item, bool | np.bool_) for item in value):
            value = [int(item) for item in value]
        return original(key, value, *arguments, **options)

    onnx.helper.make_attribute = make_attribute
    try:
        yield
    finally:
        onnx.helper.make_attribute = original


def _keep_scores(model: Any, pipeline: Any, schema: RowSchema) -> None:
    """Afterwards the only output is `scores`, in the schema's order of classes and on the scale of the target."""
    from onnx import helper, numpy_helper

    graph, found = model.graph, model.graph.output[-1].name
    last = pipeline.steps[-1][1]
    none: list[str] = []
    if not schema.classes:
        # skl2onnx 1.20 forgets the link of boosting's poisson and gamma losses
        operation, extra = ("Exp", none) if _has_forgotten_log_link(last) else ("Identity", none)
    else:
        known = [canonical_category(name) for name in last.classes_]
        wanted = [canonical_category(name) for name in schema.classes]
        operation, extra = "Identity", none
        if known != wanted:
            places = np.array([[name == other for other in wanted] for name in known], dtype=np.float32)
            graph.initializer.append(numpy_helper.from_array(places, "class_places"))
            operation, extra = "MatMul", ["class_places"]
    graph.node.append(helper.make_node(operation, [found, *extra], [SCORES]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(SCORES, 1, [None, len(schema.classes) or 1]))


def _has_forgotten_log_link(model: Any) -> bool:
    link = getattr(getattr(model, "_loss", None), "link", None)
    return "HistGradientBoosting" in type(model).__name__ and type(link).__name__ == "LogLink"


def _title(pipeline: Any) -> str:
    return type(pipeline.steps[-1][1]).__name__


def _first_line(exc: Exception) -> str:
    return (str(exc).strip() or "no message").splitlines()[0][:300]
