"""Hot swap: follow the champion alias, load the new version beside the old one, then exchange one reference."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from everloop.adapters.registry import Version
from everloop.domain.errors import ServingRefused
from serving.runtime import LoadedModel

log = logging.getLogger("everloop.serving")


class HotSwap:
    """The model that answers now. `current` is exchanged in one step; on any failure the old one stays."""

    def __init__(
        self,
        first: LoadedModel,
        *,
        champion: Callable[[], Version | None],
        load: Callable[[Version], LoadedModel],
        poll_seconds: float,
        on_swap: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.current = first
        self.since = datetime.now(UTC)
        self.refused: dict[str, Any] | None = None
        self.is_following = False
        self._champion = champion
        self._load = load
        self._poll_seconds = poll_seconds
        self._on_swap = on_swap

    def follow(self) -> None:
        """Start looking at the alias, from a thread that ends with the process."""
        self.is_following = True
        threading.Thread(target=self._run, name="hot swap", daemon=True).start()

    def check(self) -> None:
        """Afterwards `current` is the champion, or `refused` says why not."""
        version = self._champion()
        if version is None or version.number == self.current.release.version:
            self.refused = None
            return
        if self.refused and self.refused["version"] == version.number:
            return
        try:
            started = time.monotonic()
            model = self._load(version)
            if model.release.code != self.current.release.code:
                raise ServingRefused(
                    f"{model.release.tag} was built from other code or dependencies than this service; "
                    f"start its bento with `everloop restart {version.model}`"
                )
        except Exception as exc:
            self.refused = {"version": version.number, "reason": str(exc)}
            self._on_swap("refused")
            log.exception("kept v%s, refused v%s", self.current.release.version, version.number)
            return
        before, self.current = self.current.release.version, model
        self.since = datetime.now(UTC)
        self.refused = None
        self._on_swap("done")
        log.info("swapped v%s for v%s in %.2f s", before, version.number, time.monotonic() - started)

    def _run(self) -> None:
        while True:
            try:
                self.check()
            except Exception:
                self._on_swap("registry unreachable")
                log.exception("the registry cannot be read; v%s goes on", self.current.release.version)
            time.sleep(self._poll_seconds)


def stored_model_folder(version: Version) -> Path:
    """Where the bento store keeps the model of `version`.

    Raises:
        ServingRefused: it was not packaged on this machine.
    """
    import bentoml

    try:
        return Path(bentoml.models.get(version.bento).path)
    except bentoml.exceptions.NotFound as exc:
        raise ServingRefused(
            f"{version.bento} is not in the bento store; run `prefect deployment run release/{version.model}`"
        ) from exc
