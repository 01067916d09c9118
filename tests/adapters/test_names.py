"""Names: whatever a column, a category or a policy is called, MLflow takes a name made of it."""

from __future__ import annotations

import pytest

from everloop.adapters.names import mlflow_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("drift.temp", "drift.temp"),
        ("slice.page.https://x.org/a", "slice.page.https___x.org_a"),
        ("slice.job.a/", "slice.job.a_"),
        ("slice.a.b/../c", "slice.a.b___c"),
        ("max_loss_increase=0.2,persistence=1 of 1", "max_loss_increase_0.2_persistence_1 of 1"),
        ("slice.city.Łódź", "slice.city.__d_"),
        ("x" * 400, "x" * 250),
    ],
)
def test_a_name_is_one_that_mlflow_takes(text: str, expected: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    made = mlflow_name(text)
    _validate_metric_name(made)
    _validate_param_name(made)
    assert made == expected
