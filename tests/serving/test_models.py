"""The runtime: a version answers as it did when it was trained, or it is not served at all."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator

from everloop.adapters.model_files import MANIFEST_FILE, MODEL_FILE, ONNX_FILE
from everloop.domain.errors import ServingRefused
from everloop.domain.frames import batch_of
from everloop.domain.manifest import RecordedRequest
from everloop.domain.pipelines import predict
from everloop.domain.spec import ServingSpec
from serving.models import RELEASE_FILE, Release, differences, load_model, recorded_batch
from tests.factories import LINEAR, MadeModel, make_model, make_rows, save_model


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
@pytest.mark.parametrize("runtime", ["native", "onnx"])
def test_a_saved_version_loads_and_answers_as_the_pipeline_does(
    tmp_path: Path, kind: Any, family: str, runtime: Any
) -> None:
    """For both runtimes and every family of estimators."""
    forest = f"sklearn.ensemble.RandomForest{'Regressor' if kind == 'regression' else 'Classifier'}"
    estimator = {"boosting": None, "linear": LINEAR[kind], "forest": forest}[family]
    made = make_model(kind, estimator=estimator, runtime=runtime)
    model = load_model(save_model(made, tmp_path))
    rows, schema = make_rows(30, seed=1), made.manifest.row_schema
    found, expected = model.runtime.predict(batch_of(rows, schema)), predict(made.pipeline, rows, schema)
    close = {"rtol": 1e-12} if runtime == "native" else {"rtol": 1e-6, "atol": made.manifest.tolerance}
    assert (model.release, model.manifest) == (made.release, made.manifest)
    if kind == "regression":
        assert found.probabilities is None
        np.testing.assert_allclose(found.values, expected.values, **close)
    else:
        assert found.values.tolist() == expected.values.tolist()
        np.testing.assert_allclose(found.probabilities, expected.probabilities, **close)


def test_its_contract_is_made_from_its_manifest(tmp_path: Path, regressor: MadeModel) -> None:
    """Without limits in force, those of training hold."""
    model = load_model(save_model(regressor, tmp_path))
    assert model.contract.schema == model.manifest.row_schema
    assert model.contract.max_rows == model.manifest.serving.max_rows == 5


def test_limits_in_force_win_over_those_of_training(tmp_path: Path, regressor: MadeModel) -> None:
    """Today's `[serving]` counts, not that of the day of training."""
    assert load_model(save_model(regressor, tmp_path), ServingSpec(max_rows=7)).contract.max_rows == 7


def test_a_release_and_its_model_in_the_store_have_one_tag() -> None:
    """Model and version make the tag."""
    assert Release(model="bikes", version="7", code="c").tag == "bikes:v7"


def test_recorded_rows_are_the_batch_that_their_frame_is(regressor: MadeModel) -> None:
    """The arrays made of the manifest are those made of the frame that was recorded."""
    found, expected = recorded_batch(regressor.manifest), batch_of(make_rows().tail(12), regressor.manifest.row_schema)
    np.testing.assert_array_equal(found.numeric, expected.numeric)
    assert found.categorical.tolist() == expected.categorical.tolist()


def tampered(model: MadeModel, position: int, **changes: Any) -> MadeModel:
    """`model` with another recorded answer at `position`."""
    recorded = list(model.manifest.rehearsal)
    recorded[position] = recorded[position].model_copy(update=changes)
    return dataclasses.replace(model, manifest=model.manifest.model_copy(update={"rehearsal": tuple(recorded)}))


def test_a_version_that_answers_other_than_recorded_is_refused(tmp_path: Path, regressor: MadeModel) -> None:
    """One wrong answer of twelve is enough."""
    recorded = regressor.manifest.rehearsal[3].prediction
    folder = save_model(tampered(regressor, 3, prediction=recorded * 1.001), tmp_path)
    with pytest.raises(ServingRefused, match=r"bikes:v1: 1 of 12 recorded answers differ, first: row 3: .* instead of"):
        load_model(folder)


@pytest.mark.parametrize("name", ["classifier", "exported"])
def test_a_version_with_other_probabilities_is_refused_though_its_class_is_the_same(
    tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    """Probabilities are compared too, within the tolerance of the runtime."""
    model = request.getfixturevalue(name)
    no, yes = model.manifest.rehearsal[0].probabilities
    folder = save_model(tampered(model, 0, probabilities=(no - 1e-3, yes + 1e-3)), tmp_path)
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
    tmp_path: Path, classifier: MadeModel, changes: dict[str, Any]
) -> None:
    """A manifest that does not fit its model is no reason to serve it unchecked."""
    with pytest.raises(ServingRefused, match="bikes:v1: its recorded requests cannot be answered"):
        load_model(save_model(tampered(classifier, 0, **changes), tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (MODEL_FILE, None, "FileNotFoundError: .*model.skops.*"),
        (MODEL_FILE, b"noise", "BadZipFile: .*"),
        (MANIFEST_FILE, None, "RegistryError: .* holds no manifest.json: the version was not registered.*"),
        (MANIFEST_FILE, b"{}", "ValidationError: .*"),
        (RELEASE_FILE, None, "FileNotFoundError: .*release.json.*"),
        (RELEASE_FILE, b'{"model": "bikes"', "ValidationError: .*"),
    ],
)
def test_a_file_that_is_absent_or_damaged_is_refused_by_name_of_folder_and_cause(
    tmp_path: Path, regressor: MadeModel, name: str, content: bytes | None, message: str
) -> None:
    """The message names the folder, the cause and the way out."""
    folder = save_model(regressor, tmp_path / "v1")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ServingRefused, match=f"(?s)^v1: cannot be loaded: {message}; release the version again$"):
        load_model(folder)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "FileNotFoundError: model.onnx is not there"), (b"noise", "InvalidProtobuf: .*")]
)
def test_an_onnx_file_that_is_absent_or_damaged_is_refused(
    tmp_path: Path, exported: MadeModel, content: bytes | None, message: str
) -> None:
    """There is no falling back to a pipeline that nobody rehearsed."""
    folder = save_model(exported, tmp_path / "v1")
    (folder / ONNX_FILE).unlink()
    if content is not None:
        (folder / ONNX_FILE).write_bytes(content)
    with pytest.raises(ServingRefused, match=f"^v1: cannot be loaded: {message}; release the version again$"):
        load_model(folder)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path, regressor: MadeModel) -> None:
    """A file that would run code when unpickled is no model."""
    folder = save_model(regressor, tmp_path)
    (folder / MODEL_FILE).write_bytes(pickle.dumps(MakesAFile(tmp_path / "made")))
    with pytest.raises(ServingRefused, match="cannot be loaded: BadZipFile: File is not a zip file"):
        load_model(folder)
    assert not (tmp_path / "made").exists()
    pickle.loads((folder / MODEL_FILE).read_bytes())  # noqa: S301 - the pickle is one that would have done it
    assert (tmp_path / "made").exists()


def test_a_type_that_nobody_reviewed_is_refused_by_name(tmp_path: Path, regressor: MadeModel) -> None:
    """Only types on the reviewed list are built."""
    folder = save_model(regressor, tmp_path)
    skops.io.dump(Unreviewed(), folder / MODEL_FILE)
    with pytest.raises(ServingRefused, match=r"UntrustedTypesFoundException: .*tests.serving.test_models.Unreviewed"):
        load_model(folder)


@pytest.mark.parametrize(
    ("recorded", "value", "tolerance", "same"),
    [
        (100.0, 100.00005, 1e-9, True),
        (100.0, 100.001, 1e-9, False),
        (100.0, 100.001, 0.01, True),
        (0.0, 5e-7, 1e-6, True),
        (0.0, 5e-6, 1e-6, False),
        (0.0, float("nan"), 1e9, False),
        ("yes", "yes", 1e-6, True),
        ("yes", "no", 1e9, False),
        (1, 1, 1e-6, True),
        (1, 0, 1e9, False),
        (True, False, 1e9, False),
    ],
)
def test_scores_differ_beyond_the_tolerance_and_a_millionth_and_classes_at_all(
    recorded: Any, value: Any, tolerance: float, same: bool
) -> None:
    """A class is right or wrong; no tolerance makes it right."""
    values = np.array([value], dtype=object)
    found = differences((RecordedRequest(row={}, prediction=recorded),), values, None, tolerance=tolerance)
    assert found == ([] if same else [f"row 0: {value!r} instead of {recorded!r}"])
