"""Fitted once a session: a model of numbers and one of two classes."""

from __future__ import annotations

import pytest

from serving.runtime import LoadedModel
from tests.factories import make_model


@pytest.fixture(scope="session")
def regressor() -> LoadedModel:
    return make_model("regression")


@pytest.fixture(scope="session")
def classifier() -> LoadedModel:
    return make_model("binary")
