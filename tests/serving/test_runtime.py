"""The runtime: a version answers as it did when it was trained, or it is not served at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator

from everloop.adapters.model_files import MANIFEST_FILE, MODEL_FILE
from everloop.domain.errors import ServingRefused
from everloop.domain.manifest import RecordedRequest
from everloop.domain.pipelines import predict
from serving.runtime import RELEASE_FILE, LoadedModel, Release, differences, load_model
from tests.factories import LINEAR, make_model, make_rows, save_model


class Unreviewed(BaseEstimator):
    """A type that is on nobody's list."""


class MakesAFile:
    """Unpickled, it makes the file it was given: what a hostile model would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["regression", "binary"])
@pytest.mark.parametrize("family", ["boosting", "linear", "forest"])
def test_a_saved_version_loads_and_answers_as_the_pipeline_does(tmp_path: Path, kind: Any, family: str) -> None:
    forest = f"sklearn.ensemble.RandomForest{'Regressor' if kind == 'regression' else 'Classifier'}"
    made = make_model(kind, estimator={"boosting": None, "linear": LINEAR[kind], "forest": forest}[family])
    model = load_model(save_model(made, tmp_path))
    rows, schema = make_rows(30, seed=1), made.manifest.row_schema
    found = model.predict({name: rows[name].tolist() for name in schema.names})
    expected = predict(made.pipeline, rows, schema)
    assert model.release == made.release
    np.testing.assert_array_equal(found.values, expected.values)
    assert (found.probabilities is None) == (kind == "regression")
    if kind == "binary":
        np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-12)


def test_its_contract_is_made_from_its_manifest(regressor: LoadedModel) -> None:
    assert regressor.contract.schema == regressor.manifest.row_schema
    assert regressor.contract.max_rows == regressor.manifest.serving.max_rows


def test_a_release_and_its_model_in_the_store_have_one_tag() -> None:
    assert Release(model="bikes", version="7", code="c").tag == "bikes:v7"


def tampered(model: LoadedModel, position: int, **changes: Any) -> LoadedModel:
    """`model` with another recorded answer at `position`."""
    recorded = list(model.manifest.rehearsal)
    recorded[position] = recorded[position].model_copy(update=changes)
    return LoadedModel(model.release, model.manifest.model_copy(update={"rehearsal": tuple(recorded)}), model.pipeline)


def test_a_version_that_answers_other_than_recorded_is_refused(tmp_path: Path, regressor: LoadedModel) -> None:
    recorded = regressor.manifest.rehearsal[3].prediction
    folder = save_model(tampered(regressor, 3, prediction=recorded * 1.001), tmp_path)
    with pytest.raises(ServingRefused, match=r"bikes:v1: 1 of 12 recorded answers differ, first: row 3: .* instead of"):
        load_model(folder)


def test_a_version_with_other_probabilities_is_refused_though_its_class_is_the_same(
    tmp_path: Path, classifier: LoadedModel
) -> None:
    no, yes = classifier.manifest.rehearsal[0].probabilities or ()
    folder = save_model(tampered(classifier, 0, probabilities=(no - 1e-4, yes + 1e-4)), tmp_path)
    with pytest.raises(ServingRefused, match="bikes:v1: 1 of 12 recorded answers differ, first: row 0"):
        load_model(folder)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"row": {"temp": 1.0}}, id="a row without a feature"),
        pytest.param({"probabilities": (0.2, 0.3, 0.5)}, id="a class too many"),
    ],
)
def test_a_recording_that_cannot_be_replayed_is_refused(
    tmp_path: Path, classifier: LoadedModel, changes: dict[str, Any]
) -> None:
    with pytest.raises(ServingRefused, match="bikes:v1"):
        load_model(save_model(tampered(classifier, 0, **changes), tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (MODEL_FILE, None, "cannot be loaded: FileNotFoundError: .*model.skops.*; release the version again"),
        (MODEL_FILE, b"noise", "cannot be loaded: BadZipFile: .*; release the version again"),
        (
            MANIFEST_FILE,
            None,
            "cannot be loaded: RegistryError: .* holds no manifest.json: the version was not registered",
        ),
        (MANIFEST_FILE, b"{}", "cannot be loaded: ValidationError: .*; release the version again"),
        (RELEASE_FILE, None, "cannot be loaded: FileNotFoundError: .*release.json.*; release the version again"),
        (RELEASE_FILE, b'{"model": "bikes"', "cannot be loaded: ValidationError: .*; release the version again"),
    ],
)
def test_a_file_that_is_absent_or_damaged_is_refused_by_name_of_folder_and_cause(
    tmp_path: Path, regressor: LoadedModel, name: str, content: bytes | None, message: str
) -> None:
    folder = save_model(regressor, tmp_path / "v1")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ServingRefused, match=f"(?s){folder}: {message}"):
        load_model(folder)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path, regressor: LoadedModel) -> None:
    folder = save_model(regressor, tmp_path)
    (folder / MODEL_FILE).write_bytes(pickle.dumps(MakesAFile(tmp_path / "made")))
    with pytest.raises(ServingRefused, match="cannot be loaded: BadZipFile: File is not a zip file"):
        load_model(folder)
    assert not (tmp_path / "made").exists()
    pickle.loads((folder / MODEL_FILE).read_bytes())  # noqa: S301 - the pickle is one that would have done it
    assert (tmp_path / "made").exists()


def test_a_type_that_nobody_reviewed_is_refused_by_name(tmp_path: Path, regressor: LoadedModel) -> None:
    folder = save_model(regressor, tmp_path)
    skops.io.dump(Unreviewed(), folder / MODEL_FILE)
    with pytest.raises(ServingRefused, match=r"UntrustedTypesFoundException: .*tests.serving.test_runtime.Unreviewed"):
        load_model(folder)


@pytest.mark.parametrize(
    ("recorded", "value", "same"),
    [
        (100.0, 100.00005, True),
        (100.0, 100.001, False),
        (0.0, 5e-7, True),
        (0.0, 5e-6, False),
        ("yes", "yes", True),
        ("yes", "no", False),
        (1, 1, True),
        (1, 0, False),
    ],
)
def test_answers_differ_beyond_a_millionth_and_classes_at_all(recorded: Any, value: Any, same: bool) -> None:
    found = differences((RecordedRequest(row={}, prediction=recorded),), np.array([value]), None)
    assert found == ([] if same else [f"row 0: {np.array([value])[0]!r} instead of {recorded!r}"])
