"""One generation of a service: a running bento, and the plan that its workers follow."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from pathlib import Path

from everloop.adapters.registry import Version
from everloop.adapters.service import describe_service, end_with_parent, serve_command, serves, stop_process
from everloop.domain.errors import ServingRefused
from everloop.domain.spec import ModelSpec
from everloop.settings import Settings
from serving.plan import Plan, PlanFolder, Refusal, without_paths

log = logging.getLogger("everloop.keeper")

CHECK_SECONDS = 0.02


class Generation:
    """One running bento: its process, its port, and the plan its workers follow."""

    def __init__(self, spec: ModelSpec, settings: Settings, version: Version, folder: Path, port: int) -> None:
        """Start the bento of `version`; it is not ready yet."""
        self.code = version.tags.get("code_digest", "")
        self.port = port
        self._spec, self._settings = spec, settings
        self._folder = PlanFolder(folder)
        self._turn = 0
        self.plan = Plan(turn=0, serve=version.bento)
        self._folder.create(self.plan)
        self._turn_number = self._folder.open_turn()
        self.process = self._start()

    @property
    def version(self) -> str:
        """The number of the version that it serves."""
        return self.plan.serve.rpartition(":v")[2]

    def wait_until_ready(self) -> None:
        """Return when every worker serves the plan's version.

        Raises:
            ServingRefused: the process ends, a worker cannot start, or it is not ready in time.
        """
        deadline = time.monotonic() + self._settings.boot_seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ServingRefused(
                    f"{self.plan.serve}: the service ended with code {self.process.returncode}; see its log"
                )
            if (failure := self._folder.failure()) is not None:
                raise ServingRefused(failure)
            if len(self._folder.workers()) >= self._spec.serving.workers and self._answers():
                return
            time.sleep(CHECK_SECONDS)
        raise ServingRefused(
            f"{self.plan.serve}: the service was not ready after {self._settings.boot_seconds:.0f} s; see its log"
        )

    def swap(self, version: Version) -> None:
        """Afterwards every worker serves `version`; if one refuses it, none does.

        Raises:
            ServingRefused: a worker refuses it, or does not say so in time.
        """
        self._write(self.plan.model_copy(update={"prepare": version.bento, "refused": None}))
        self._wait_until_prepared(version)
        self._turn += 1
        self._write(Plan(turn=self._turn, serve=version.bento))
        self._turn_number.set(self._turn)

    def refuse(self, version: Version, reason: str) -> None:
        """Afterwards GET /model says why `version` is not served."""
        refusal = Refusal(version=version.number, reason=without_paths(reason))
        self._write(self.plan.model_copy(update={"prepare": None, "starting": None, "refused": refusal}))

    def announce(self, version: Version) -> None:
        """Afterwards GET /model says that the bento of `version` is being started to take over."""
        self._write(self.plan.model_copy(update={"starting": version.number, "refused": None}))

    def note_registry(self, problem: str | None) -> None:
        """Afterwards GET /model says whether the registry can be read."""
        if problem != self.plan.registry_problem:
            self._write(self.plan.model_copy(update={"registry_problem": problem}))

    def forgive(self) -> None:
        """Afterwards nothing counts as refused."""
        if self.plan.refused is not None:
            self._write(self.plan.model_copy(update={"refused": None}))

    def revive(self) -> None:
        """Start the process again if it has ended."""
        if self.process.poll() is not None:
            log.error("the service ended with code %s and is started again", self.process.returncode)
            self.process = self._start()

    def stop(self) -> None:
        """Afterwards its processes are gone."""
        stop_process(self.process)
        shutil.rmtree(self._folder.folder, ignore_errors=True)

    def _wait_until_prepared(self, version: Version) -> None:
        deadline = time.monotonic() + self._settings.boot_seconds
        while time.monotonic() < deadline:
            states = self._folder.workers()
            refused = next((state.refused for state in states if state.refused), None)
            if refused is not None and refused.version == version.number:
                raise ServingRefused(refused.reason)
            if states and all(version.number in (state.prepared, state.version) for state in states):
                return
            time.sleep(CHECK_SECONDS)
        raise ServingRefused(
            f"{version.bento}: the workers were not ready for it after {self._settings.boot_seconds:.0f} s"
        )

    def _write(self, plan: Plan) -> None:
        self._folder.write(plan)
        self.plan = plan

    def _answers(self) -> bool:
        keys = self._settings.api_keys(self._spec.serving)
        found = describe_service(f"http://127.0.0.1:{self.port}", keys)
        return serves(found, self.version)

    def _start(self) -> subprocess.Popen[bytes]:
        environment = self._settings.environment(threads=1) | {
            "EVERLOOP_FOLLOWING": str(self._folder.folder),
            "EVERLOOP_SERVING": self._spec.serving.model_dump_json(),
        }
        return subprocess.Popen(serve_command(self.plan.serve, self.port), env=environment, preexec_fn=end_with_parent)
