"""Package: a registered version becomes a bento."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from everloop.adapters.model_files import MODEL_FILE, read_manifest
from everloop.adapters.registry import Version
from everloop.settings import settings
from serving.build import build_bento
from serving.runtime import Release
from tasks.step import step
from tasks.wiring import registry

log = logging.getLogger("everloop.package")


@step
def package(version: Version) -> Release:
    """The release of `version`, in the bento store; an unchanged one is not built again."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = registry().model_folder(version, Path(scratch))
        release = build_bento(
            read_manifest(folder), version.number, folder / MODEL_FILE, environment=settings().environment()
        )
    registry().tag(version, bento=release.tag, code_digest=release.code)
    log.info("packaged %s", release.tag)
    return release
