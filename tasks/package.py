"""Package: a registered version becomes a bento."""

from __future__ import annotations

import logging

from everloop.adapters.registry import Version
from everloop.settings import settings
from serving.build import build_bento
from serving.models import Release
from tasks.step import step
from tasks.wiring import registry

log = logging.getLogger("everloop.package")


@step
def package(version: Version) -> Release:
    """The release of `version`, in the bento store; an unchanged one is not built again."""
    with registry().model_folder(version) as folder:
        release = build_bento(folder, version.number, environment=settings().environment())
    registry().tag(version, bento=release.tag, code_digest=release.code)
    log.info("packaged %s", release.tag)
    return release
