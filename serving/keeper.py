"""The keeper of a model's service: it follows the champion alias, and brings every worker there together.

A champion with the code and dependencies of the running bento is swapped in: every worker prepares it, then all serve it.
One with others is handed over to: its bento starts beside the running one, is checked, gets the requests, and the old one
is drained and stopped. Whatever fails, what is live stays live.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everloop.adapters.registry import PREVIOUS, Registry, Version
from everloop.adapters.service import NUDGE, free_port
from everloop.domain.errors import ServingRefused, StackError
from everloop.domain.spec import ModelSpec
from everloop.settings import Settings
from serving.generation import CHECK_SECONDS, Generation
from serving.proxy import Proxy, Slot, haproxy, other

log = logging.getLogger("everloop.keeper")

NUDGE_SECONDS = 0.02


class Keeper:
    """Runs the service of one model."""

    def __init__(self, spec: ModelSpec, settings: Settings) -> None:
        self._spec, self._settings = spec, settings
        self._registry = Registry(settings.mlflow)
        self._folder = settings.keeper_folder(spec.name)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._started = 0
        self._slot: Slot = "blue"
        self._proxy: Proxy | None = None
        self._live: Generation | None = None
        self._refused: tuple[str, float] | None = None
        self._nudged = 0

    def run(self) -> None:
        """Serve the champion and follow it until the process is asked to end; before the first promotion, wait for it.

        Raises:
            StackError: another keeper serves this model from this home.
            EverloopError: the first champion cannot be served.
        """
        with self._only_keeper():
            signal.signal(signal.SIGTERM, _interrupt)
            try:
                self._begin(self._first_champion())
                while True:
                    self._wait()
                    for step in (self._live_generation.revive, self._revive_proxy, self._follow):
                        self._try(step)
            except KeyboardInterrupt:
                log.info("stopping")
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                self._stop()

    @property
    def _live_generation(self) -> Generation:
        assert self._live is not None
        return self._live

    def _try(self, step: Callable[[], None]) -> None:
        """Take one step; what goes wrong in it, a full disk for example, must not end what is live."""
        try:
            step()
        except Exception:  # whatever it is, it is tried again
            log.exception("a step failed; v%s goes on", self._live_generation.version)

    def _first_champion(self) -> Version:
        champion = self._registry.champion(self._spec.name)
        if champion is None:
            log.info("%s has no champion yet; waiting for the first release", self._spec.name)
        while champion is None:
            time.sleep(self._settings.poll_seconds)
            champion = self._registry.champion(self._spec.name)
        return champion

    def _begin(self, champion: Version) -> None:
        """Serve `champion`; if it cannot be served, the version before it, which could."""
        program = haproxy()
        if program is not None:
            self._proxy = self._start_proxy(program)
        else:
            log.warning(
                "HAProxy is not installed: a release with other code or dependencies will need `everloop restart`"
            )
        try:
            self._start(champion)
        except ServingRefused as exc:
            previous = self._registry.at_alias(self._spec.name, PREVIOUS)
            if previous is None:
                raise
            log.error("%s cannot be served, so %s is: %s", champion.label, previous.label, exc)
            self._live_generation.stop()
            self._start(previous)
            self._refuse(champion, exc)

    def _start(self, version: Version) -> None:
        port = self._settings.port_of(self._spec)
        self._live = self._generation(version, port if self._proxy is None else free_port())
        self._live.wait_until_ready()
        if self._proxy is not None:
            self._proxy.switch(self._slot, self._live.port)
        log.info("serving %s on port %d", version.label, port)

    def _follow(self) -> None:
        live = self._live_generation
        try:
            champion = self._registry.champion(self._spec.name)
        except Exception as exc:  # whatever MLflow raises: the service goes on, and says so
            if live.plan.registry_problem is None:
                log.exception("the registry cannot be read; v%s goes on", live.version)
            live.note_registry(type(exc).__name__)
            return
        live.note_registry(None)
        if champion is None or champion.number == live.version:
            live.forgive()
            self._refused = None
        elif self._is_due(champion):
            self._bring(champion)

    def _wait(self) -> None:
        """Return after the poll's interval, or at once when somebody on this machine has moved an alias."""
        deadline = time.monotonic() + self._settings.poll_seconds
        while time.monotonic() < deadline and _stamp_of(self._folder / NUDGE) == self._nudged:
            time.sleep(NUDGE_SECONDS)
        self._nudged = _stamp_of(self._folder / NUDGE)

    def _is_due(self, champion: Version) -> bool:
        """False for a while after `champion` was refused; then again True, for it may have been the disk."""
        if self._refused is None or self._refused[0] != self._stamp(champion):
            return True
        return time.monotonic() >= self._refused[1]

    def _bring(self, champion: Version) -> None:
        live, started = self._live_generation, time.monotonic()
        try:
            if champion.tags.get("code_digest", "") == live.code:
                live.swap(champion)
            else:
                self._hand_over(champion)
        except (ServingRefused, StackError, OSError) as exc:
            log.error("kept v%s, refused %s: %s", live.version, champion.label, exc)
            self._refuse(champion, exc)
        else:
            self._refused = None
            log.info("serving %s after %.2f s", champion.label, time.monotonic() - started)

    def _refuse(self, champion: Version, exc: Exception) -> None:
        self._refused = (self._stamp(champion), time.monotonic() + self._settings.refused_seconds)
        self._live_generation.refuse(champion, str(exc))

    def _hand_over(self, champion: Version) -> None:
        """Afterwards a bento of `champion` has taken the place of the running one, which is gone."""
        if self._proxy is None:
            raise ServingRefused(
                f"{champion.label} was built from other code or dependencies than this service, and there is no HAProxy to hand "
                f"over with; start its bento with `everloop restart {champion.model}`"
            )
        log.info("handing over to %s, which has other code or dependencies", champion.label)
        old, before, after = self._live_generation, self._slot, other(self._slot)
        old.announce(champion)
        new = self._generation(champion, free_port())
        try:
            new.wait_until_ready()
            self._revive_proxy()
            self._proxy.switch(after, new.port)
        except BaseException:
            new.stop()
            raise
        self._live, self._slot = new, after
        try:
            self._drain(self._proxy, before)
        finally:
            old.stop()

    def _drain(self, proxy: Proxy, slot: Slot) -> None:
        """Return when no request is under way in `slot`; a body and its answer may take `timeout_seconds` each."""
        deadline = time.monotonic() + 2 * self._spec.serving.timeout_seconds + 10
        while proxy.in_flight(slot) and time.monotonic() < deadline:
            time.sleep(CHECK_SECONDS)
        proxy.close(slot)

    def _generation(self, version: Version, port: int) -> Generation:
        self._started += 1
        return Generation(self._spec, self._settings, version, self._folder / f"generation-{self._started}", port)

    def _start_proxy(self, program: str) -> Proxy:
        return Proxy(program, self._settings.port_of(self._spec), folder=self._folder, serving=self._spec.serving)

    def _revive_proxy(self) -> None:
        program = haproxy()
        if self._proxy is not None and self._proxy.process.poll() is not None and program is not None:
            log.error("HAProxy ended with code %s and is started again", self._proxy.process.returncode)
            self._proxy.stop()
            self._proxy = self._start_proxy(program)
            self._proxy.switch(self._slot, self._live_generation.port)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
        if self._proxy is not None:
            self._proxy.stop()

    @contextlib.contextmanager
    def _only_keeper(self) -> Any:
        with (self._folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise StackError(
                    f"{self._spec.name} is already being served from {self._settings.home}; stop that one first"
                ) from exc
            for left in self._folder.glob("generation-*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    @staticmethod
    def _stamp(version: Version) -> str:
        """What a refusal is about: this build of this version; built again, it is another."""
        return f"{version.number} {version.tags.get('code_digest', '')}"


def _stamp_of(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
