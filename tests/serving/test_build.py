"""The bento: it holds every module that a worker imports, and nothing that a prediction does not need is imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.build import PROJECT, RUNTIME_PACKAGES, SOURCES, digest_code, pins
from tests.factories import MadeModel, as_requests, make_rows, make_spec, save_model

PROGRAM = """
import asyncio, json, sys
from pathlib import Path

import serving.service
from everloop.domain.spec import ServingSpec
from serving.app import Serving
from serving.capture import Capture, Segments
from serving.doors import Keys
from serving.following import Fixed
from serving.models import load_model

here = Path.cwd()
asked = (here / "body.json").read_bytes()


def segments(name):
    return Capture(Segments(here / name, max_bytes=10_000, max_seconds=60))


def answer(folder):
    serving = Serving()
    model = load_model(here / folder)
    captures = {name: segments(name) for name in ("predictions", "labels")}
    serving.open(Fixed(model), ServingSpec(), keys=Keys([]), **captures)
    for handler in (serving.model, serving.docs, serving.ready):
        asyncio.run(handler(b"", "id"))
    answered = json.loads(asyncio.run(serving.predict(asked, "id")))
    return {"answer": answered, "modules": sorted(sys.modules)}


found = {"exported": answer("exported"), "native": answer("native")}
found["files"] = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, classifier: MadeModel, exported: MadeModel) -> dict[str, Any]:
    """What a process says that has only the files of a bento, and answers by an exported and then by a native model."""
    folder = tmp_path_factory.mktemp("bento").resolve()
    for source in SOURCES:
        target = folder / source
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / source, target)
    save_model(exported, folder / "exported")
    save_model(classifier, folder / "native")
    (folder / "body.json").write_text(json.dumps({"rows": as_requests(make_rows().tail(3), make_spec())}))
    environment = {**os.environ, "EVERLOOP_HOME": str(folder / "home"), "BENTOML_HOME": str(folder / "bentoml")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "folder": folder}


def test_every_module_of_ours_that_a_worker_imports_is_in_the_bento(worker: dict[str, Any]) -> None:
    """A bento that lacks one does not start, or falls over the first native model."""
    ours = [
        name
        for name in worker["files"]
        if name.startswith((str(PROJECT / "everloop"), str(PROJECT / "serving"), str(PROJECT / "tasks")))
    ]
    assert ours == []
    folder = worker["folder"]
    imported = {str(Path(name).relative_to(folder)) for name in worker["files"] if Path(name).is_relative_to(folder)}
    assert imported <= set(SOURCES)


def test_the_bento_holds_nothing_that_no_worker_imports(worker: dict[str, Any]) -> None:
    """A change in such a file would need a new bento for nothing."""
    folder = worker["folder"]
    imported = {str(Path(name).relative_to(folder)) for name in worker["files"] if Path(name).is_relative_to(folder)}
    assert set(SOURCES) <= imported


@pytest.mark.parametrize("package", ["pandas", "sklearn", "scipy", "mlflow", "skl2onnx", "skops", "prefect", "pyarrow"])
def test_an_exported_model_answers_without(worker: dict[str, Any], package: str) -> None:
    """What is not imported costs neither memory nor a boot's time, and cannot break."""
    assert package not in {name.partition(".")[0] for name in worker["exported"]["modules"]}


def test_both_runtimes_answer_alike_from_a_bento(worker: dict[str, Any], classifier: MadeModel) -> None:
    """As training recorded it."""
    recorded = [request.prediction for request in classifier.manifest.rehearsal[-3:]]
    assert worker["exported"]["answer"]["predictions"] == worker["native"]["answer"]["predictions"] == recorded


@pytest.mark.parametrize("runtime", ["onnx", "native"])
def test_a_runtime_pins_its_own_packages_and_not_the_others(runtime: str) -> None:
    """At the versions that are installed here."""
    names = {pin.partition("==")[0] for pin in pins(runtime)}
    assert all("==" in pin for pin in pins(runtime))
    for other, packages in RUNTIME_PACKAGES.items():
        assert set(packages).issubset(names) is (other == runtime)


def test_versions_of_another_runtime_have_another_digest_and_the_same_has_the_same() -> None:
    """Versions with equal digests may be swapped in one process."""
    assert digest_code("onnx") == digest_code("onnx")
    assert digest_code("onnx") != digest_code("native")
