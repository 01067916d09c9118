"""Fitted once a session: a model of numbers and one of two classes, and the latter as ONNX."""

from __future__ import annotations

import pytest

from tests.factories import MadeModel, make_model


@pytest.fixture(scope="session")
def regressor() -> MadeModel:
    return make_model("regression")


@pytest.fixture(scope="session")
def classifier() -> MadeModel:
    return make_model("binary")


@pytest.fixture(scope="session")
def exported() -> MadeModel:
    return make_model("binary", runtime="onnx")
