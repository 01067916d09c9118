"""From an approved version to a bento: the model in the model store, the serving code and its pins in a bento."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version as installed
from pathlib import Path

from everloop.adapters.model_files import MANIFEST_FILE, MODEL_FILE, ONNX_FILE, find_file, read_manifest
from everloop.domain.errors import ServingRefused
from serving.models import RELEASE_FILE, Release

PROJECT = Path(__file__).resolve().parent.parent
SERVING = (
    "app", "capture", "contract", "doors", "following", "front", "logs", "metrics", "models", "openapi", "plan", "service",
)  # fmt: skip
DOMAIN = (
    "autocorrelation", "batch", "configuration", "errors", "frames", "manifest", "metrics", "monitor_spec", "pipelines",
    "schema", "spec", "spec_values",
)  # fmt: skip
SOURCES = (
    "serving/__init__.py", *(f"serving/{name}.py" for name in SERVING),
    "everloop/__init__.py", "everloop/settings.py",
    "everloop/domain/__init__.py", *(f"everloop/domain/{name}.py" for name in DOMAIN),
    "everloop/adapters/__init__.py", "everloop/adapters/model_files.py", "everloop/adapters/onnx_runtime.py",
)  # fmt: skip
"""What a worker imports; a change in anything else needs no new bento."""
PACKAGES = (
    "bentoml", "httptools", "msgspec", "numpy", "orjson", "prometheus-client", "pydantic", "pydantic-settings", "uvicorn", "uvloop",
)  # fmt: skip
RUNTIME_PACKAGES = {"onnx": ("onnxruntime",), "native": ("pandas", "scikit-learn", "scipy", "skops")}


def pins(runtime: str) -> list[str]:
    """What a model with this runtime needs to be served, at the versions installed here."""
    return [f"{name}=={installed(name)}" for name in (*PACKAGES, *RUNTIME_PACKAGES[runtime])]


def digest_code(runtime: str) -> str:
    """The digest of the serving code and its pins: versions with equal digests may be swapped in one process."""
    digest = hashlib.sha256("\n".join(pins(runtime)).encode())
    for path in _source_files():
        digest.update(f"\0{path.relative_to(PROJECT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def build_bento(folder: Path, version: str, *, environment: dict[str, str]) -> Release:
    """The release of the version whose files are in `folder`, in the bento store; built again if the code has changed since.

    Needs no network. Raises:
        ServingRefused: BentoML cannot build it.
    """
    import bentoml

    manifest = read_manifest(folder)
    release = Release(model=manifest.model, version=version, code=digest_code(manifest.runtime))
    name = ONNX_FILE if manifest.runtime == "onnx" else MODEL_FILE
    model_file = find_file(folder, name)
    if model_file is None:
        raise ServingRefused(f"{release.tag}: the registry holds no {name} for it; train again")
    files = {MANIFEST_FILE: manifest.model_dump_json(), RELEASE_FILE: release.model_dump_json()}
    if _is_built(release):
        return release
    with tempfile.TemporaryDirectory(prefix="everloop-build-") as scratch:
        context = Path(scratch)
        for path in _source_files():
            target = context / path.relative_to(PROJECT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        (context / "service.json").write_text(
            json.dumps({"model": manifest.model, "workers": manifest.serving.workers})
        )
        for other, text in files.items():
            (context / other).write_text(text)
        _delete_if_there(release.tag)
        with bentoml.models.create(release.tag, labels={"code": release.code}) as stored:
            shutil.copy(model_file, stored.path_of(name))
            for other, text in files.items():
                Path(stored.path_of(other)).write_text(text)
        _run_build(release, manifest.runtime, context, environment)
    return release


def _run_build(release: Release, runtime: str, context: Path, environment: dict[str, str]) -> None:
    """Build in a process of its own: this one has other modules called `serving` in memory."""
    program = (
        "import bentoml, sys\n"
        f"bentoml.build('serving.service:Service', name={release.model!r}, version='v{release.version}', build_ctx='.', "
        f"include=['**/*.py', '*.json'], labels={{'code': {release.code!r}}}, models=[{release.tag!r}], "
        f"python={{'packages': {pins(runtime)!r}, 'lock_packages': False}})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=context, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise ServingRefused(f"{release.tag}: bentoml build failed: {last}; the version stays a challenger")


def _is_built(release: Release) -> bool:
    import bentoml

    try:
        stored, bento = bentoml.models.get(release.tag), bentoml.bentos.get(release.tag)
    except bentoml.exceptions.NotFound:
        return False
    kept = Path(stored.path) / RELEASE_FILE
    same = kept.is_file() and Release.model_validate_json(kept.read_bytes()) == release
    return same and bento.info.labels.get("code") == release.code


def _delete_if_there(tag: str) -> None:
    import bentoml

    for store in (bentoml.bentos, bentoml.models):
        try:
            store.delete(tag)
        except bentoml.exceptions.NotFound:
            continue


def _source_files() -> list[Path]:
    return [PROJECT / name for name in SOURCES]
