"""Metrics: every series names model and version, and counts what it says."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from prometheus_client import REGISTRY, generate_latest

from serving.metrics import VersionMetrics, count_lost, count_swap, observe_preparation, show_lag
from serving.models import Release
from tests.factories import MadeModel

_numbers = count(1000)


@pytest.fixture
def model(regressor: MadeModel) -> MadeModel:
    """A version that no other test has counted for."""
    release = Release(model="bikes", version=str(next(_numbers)), code="same")
    made_at = datetime.now(UTC) - timedelta(hours=1)
    return dataclasses.replace(
        regressor, release=release, manifest=regressor.manifest.model_copy(update={"made_at": made_at})
    )


def value_of(name: str, model: MadeModel, **labels: str) -> float | None:
    """A series of a version, None if there is none."""
    return REGISTRY.get_sample_value(name, {"model": "bikes", "version": model.release.version, **labels})


def test_an_answer_counts_requests_rows_nulls_unseen_categories_and_time(model: MadeModel) -> None:
    """Each in its own series."""
    metrics = VersionMetrics(model)
    metrics.count_answer(rows=3, seconds=0.002, nulls=2, unseen=1)
    metrics.count_answer(rows=1, seconds=0.2, nulls=0, unseen=0)
    found = {
        name: value_of(f"everloop_{name}", model)
        for name in ("requests_total", "rows_total", "nulls_total", "unseen_categories_total", "batch_rows_sum")
    }
    assert found == {
        "requests_total": 2,
        "rows_total": 4,
        "nulls_total": 2,
        "unseen_categories_total": 1,
        "batch_rows_sum": 4,
    }
    assert value_of("everloop_predict_seconds_sum", model) == pytest.approx(0.202)
    assert value_of("everloop_predict_seconds_bucket", model, le="0.005") == 1


def test_errors_are_counted_by_kind(model: MadeModel) -> None:
    """A client's mistakes are told from ours."""
    metrics = VersionMetrics(model)
    for kind in ("contract", "contract", "internal"):
        metrics.count_error(kind)
    assert value_of("everloop_errors_total", model, kind="contract") == 2
    assert value_of("everloop_errors_total", model, kind="internal") == 1


def test_the_age_of_a_model_is_since_it_was_made_and_of_none_but_the_one_that_is_served(model: MadeModel) -> None:
    """An alert on age must not fire for a version that is gone."""
    metrics = VersionMetrics(model)
    metrics.show_age()
    assert value_of("everloop_model_age_seconds", model) == pytest.approx(3600, abs=600)
    metrics.hide_age()
    assert math.isnan(value_of("everloop_model_age_seconds", model) or 0)


def test_swaps_and_how_long_they_took_are_counted_by_version(model: MadeModel) -> None:
    """A refused one too."""
    count_swap(model.release.tag, "done")
    count_swap(model.release.tag, "refused")
    observe_preparation(model, 0.3)
    assert value_of("everloop_swaps_total", model, result="done") == 1
    assert value_of("everloop_swaps_total", model, result="refused") == 1
    assert value_of("everloop_swap_seconds_sum", model) == pytest.approx(0.3)


def test_losses_and_lag_of_the_capture_are_told_by_model() -> None:
    """Predictions and labels apart."""
    count_lost("scooters", "predictions", 5)
    count_lost("scooters", "predictions", 2)
    show_lag("scooters", 1.5)
    labels = {"model": "scooters"}
    assert REGISTRY.get_sample_value("everloop_capture_lost_total", {**labels, "kind": "predictions"}) == 7
    assert REGISTRY.get_sample_value("everloop_capture_lag_seconds", labels) == 1.5


def test_no_series_is_named_by_what_a_client_sends() -> None:
    """A label of that kind would grow without end."""
    names = {
        label
        for family in REGISTRY.collect()
        if family.name.startswith("everloop_")
        for s in family.samples
        for label in s.labels
    }
    assert names <= {"model", "version", "kind", "result", "le"}
    assert b"everloop_requests_total" in generate_latest()
