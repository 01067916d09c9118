"""Tests of everloop/adapters/fit_cache.py: fits are made once, survive kills, and go by what they depend on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from everloop.adapters.fit_cache import FitCache, history_folder, remembered_configuration
from everloop.domain.configuration import Configuration
from everloop.domain.frames import derive_schema
from everloop.domain.replay_fits import FitRequest, Subject, fit_request
from tests.domain.replay_examples import a_changing_history, a_replay_spec

REQUESTS = [FitRequest(first=0, last=200, upto=300, since=200), FitRequest(first=100, last=200, upto=300, since=100)]


@pytest.fixture(name="subject")
def a_subject() -> Subject:
    rows, spec = a_changing_history(), a_replay_spec()
    return Subject(rows, spec, derive_schema(rows, spec), Configuration(estimator="sklearn.linear_model.Ridge"))


def test_answers_are_those_of_the_fit_and_in_the_order_asked(subject: Subject, tmp_path: Path) -> None:
    with FitCache(subject, tmp_path) as fits:
        found = fits(REQUESTS[::-1])
    assert [fit.request for fit in found] == REQUESTS[::-1]
    np.testing.assert_array_equal(found[1].losses, fit_request(REQUESTS[0], subject).losses)


def test_a_second_run_fits_nothing(subject: Subject, tmp_path: Path) -> None:
    with FitCache(subject, tmp_path) as fits:
        made = fits(REQUESTS)
    with FitCache(subject, tmp_path) as again:
        kept = again(REQUESTS)
    assert (fits.fitted, again.fitted) == (2, 0)
    for one, other in zip(made, kept, strict=True):
        np.testing.assert_array_equal(one.losses, other.losses)
        np.testing.assert_array_equal(one.answers, other.answers)
        assert one.seconds == other.seconds


def test_a_torn_or_unfinished_file_is_fitted_again(subject: Subject, tmp_path: Path) -> None:
    with FitCache(subject, tmp_path) as fits:
        made = fits(REQUESTS)
    kept = sorted(tmp_path.rglob("*.npz"))
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    (kept[0].parent / ".9999.npz").write_bytes(b"PK")
    with FitCache(subject, tmp_path) as again:
        found = again(REQUESTS)
    assert again.fitted == 1
    np.testing.assert_array_equal(found[0].losses, made[0].losses)


def test_two_processes_answer_as_one_does(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everloop.adapters.fit_cache._SMALL", 100)
    with FitCache(subject, tmp_path / "two", processes=2) as fits:
        found = fits(REQUESTS)
    for fit in found:
        np.testing.assert_array_equal(fit.losses, fit_request(fit.request, subject).losses)


def test_what_cannot_be_learnt_from_is_kept_as_a_failure(tmp_path: Path) -> None:
    rows = a_changing_history().assign(y=lambda frame: (frame.index >= 300).astype(int))
    spec = a_replay_spec(kind="binary", gates={"metric": "log_loss", "worst_allowed": 10.0, "holdout_rows": 40})
    subject = Subject(
        rows, spec, derive_schema(rows, spec), Configuration(estimator="sklearn.linear_model.LogisticRegression")
    )
    for expected in (1, 0):
        with FitCache(subject, tmp_path) as fits:
            (found,) = fits(REQUESTS[:1])
        assert found.failure is not None
        assert "class" in found.failure
        assert fits.fitted == expected


def test_other_rows_features_or_metrics_have_another_folder(tmp_path: Path) -> None:
    rows, spec = a_changing_history(), a_replay_spec()
    other = [
        history_folder(tmp_path, spec, rows.assign(y=rows["y"] + 1e-9)),
        history_folder(tmp_path, a_replay_spec(features={"numeric": ["x"], "categorical": []}), rows),
        history_folder(tmp_path, a_replay_spec(gates={**spec.gates.model_dump(), "metric": "rmse"}), rows),
    ]
    assert len({history_folder(tmp_path, spec, rows), *other}) == 4


def test_fits_of_another_code_are_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, spec = a_changing_history(), a_replay_spec()
    before = history_folder(tmp_path, spec, rows)
    monkeypatch.setattr("inspect.getsource", lambda module: f"# another {module.__name__}")
    assert history_folder(tmp_path, spec, rows) != before


def test_another_policy_has_the_same_folder(tmp_path: Path) -> None:
    rows = a_changing_history()
    one, other = (history_folder(tmp_path, a_replay_spec(monitor={"on_growth": share}), rows) for share in (0.1, 0.5))
    assert one == other


def test_a_search_is_repeated_only_if_what_it_depends_on_changes(tmp_path: Path) -> None:
    searched: list[int] = []

    def search() -> Configuration:
        searched.append(1)
        return Configuration(estimator="sklearn.linear_model.Ridge", parameters={"alpha": 0.1 + 0.2})

    first = remembered_configuration(tmp_path, a_replay_spec(), 200, search)
    assert remembered_configuration(tmp_path, a_replay_spec(), 200, search) == first
    assert len(searched) == 1
    remembered_configuration(tmp_path, a_replay_spec(), 201, search)
    remembered_configuration(tmp_path, a_replay_spec(search={"trials": 5}), 200, search)
    assert len(searched) == 3
