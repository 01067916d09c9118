"""Hot swap, seen from a worker: prepare what the plan asks for beside the model that answers, and serve it at the turn."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from serving.models import LoadedModel
from serving.plan import Plan, PlanFolder, Refusal, WorkerState, without_paths

log = logging.getLogger("everloop.serving")

POLL_SECONDS = 0.02


class Fixed:
    """The model of a service that follows nothing: a bento served by itself, or a rehearsal."""

    def __init__(self, model: LoadedModel) -> None:
        self.current = model
        self.since = datetime.now(UTC)
        self.plan: Plan | None = None

    def states(self) -> list[WorkerState]:
        """The state of this worker."""
        return [WorkerState(pid=os.getpid(), version=self.current.release.version, since=self.since)]


class Following:
    """The model that answers now, exchanged in one step when the plan's number turns; on any failure the old one stays."""

    def __init__(
        self,
        folder: PlanFolder,
        *,
        load: Callable[[str], LoadedModel],
        on_prepared: Callable[[LoadedModel, float], None] = lambda _, __: None,
        on_swap: Callable[[LoadedModel], None] = lambda _: None,
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Load the version that the plan serves.

        Raises:
            ServingRefused: it cannot be loaded.
        """
        self._folder = folder
        self._load = load
        self._on_prepared, self._on_swap, self._on_refused = on_prepared, on_swap, on_refused
        self._lock = threading.RLock()
        self._turn = folder.open_turn()
        self._prepared: LoadedModel | None = None
        self._refused: Refusal | None = None
        self._told: Refusal | None = None
        self._seen = -1
        while self._seen != self._turn.get():  # the plan may change while a model is being loaded
            self._seen = self._turn.get()
            self.plan = folder.read()
            self._model = load(self.plan.serve)
        self.since = datetime.now(UTC)
        self._stamp = (0, 0)
        self._reported: datetime | None = None
        self._report()

    @property
    def current(self) -> LoadedModel:
        """The model of the plan in force at this moment."""
        if self._turn.get() != self._seen:
            self._take_turn()
        return self._model

    def states(self) -> list[WorkerState]:
        """The states of all workers of this service."""
        return self._folder.workers()

    def follow(self) -> None:
        """Start following the plan, from a thread that ends with the process."""
        threading.Thread(target=self._run, name="following", daemon=True).start()

    def check(self) -> None:
        """Afterwards the newest plan is known, and the version it wants prepared is prepared or refused."""
        stamp = self._folder.stamp()
        if stamp != self._stamp:
            plan, self._stamp = self._folder.read(), stamp
            if plan.refused is not None and plan.refused != self._told and self._refused is None:
                # by another worker, or at a hand-over
                self._on_refused(f"{self._model.release.model}:v{plan.refused.version}")
            self._told = plan.refused
            with self._lock:
                self.plan = plan
                if self._refused and self._refused.version not in (_number(plan.prepare), _number(plan.serve)):
                    self._refused = None
                if self._prepared is not None and self._prepared.release.tag not in (plan.prepare, plan.serve):
                    self._prepared = None
            if plan.prepare is not None:
                self._prepare(plan.prepare)
            self._report()
        if self._turn.get() != self._seen:
            self._take_turn()

    def _prepare(self, tag: str) -> None:
        """Afterwards the version is loaded and checked beside the one that answers, or refused; requests do not wait for it."""
        if self._prepared is not None and self._prepared.release.tag == tag:
            return
        started = time.monotonic()
        try:
            model = self._load(tag)
        except Exception as exc:  # whatever is wrong with it, the old one stays
            self._refused = Refusal(version=_number(tag), reason=without_paths(str(exc)))
            log.exception("refused %s", tag, extra={"event": "refused"})
            self._on_refused(tag)
        else:
            with self._lock:
                is_late = tag == self._model.release.tag  # its turn came meanwhile, and it was loaded there
                self._prepared, self._refused = None if is_late else model, None
            self._on_prepared(model, time.monotonic() - started)

    def _take_turn(self) -> None:
        """Serve what the plan in force says. A worker that was not asked in time loads it here, and answers late but right."""
        with self._lock:
            turn = self._turn.get()
            if turn == self._seen:
                return
            self.plan = self._folder.read()
            if self.plan.serve != self._model.release.tag:
                self._prepare(self.plan.serve)
                if self._prepared is not None and self._prepared.release.tag == self.plan.serve:
                    self._model, self._prepared = self._prepared, None
                    self.since = datetime.now(UTC)
                    self._on_swap(self._model)
            self._seen = turn  # last: until now whoever asks for `current` waits at the lock
        self._report()

    def _report(self) -> None:
        """Tell the keeper; on a full disk try again later, the requests go on."""
        state = WorkerState(
            pid=os.getpid(),
            version=self._model.release.version,
            since=self.since,
            prepared=self._prepared.release.version if self._prepared else None,
            refused=self._refused,
        )
        self._reported = None
        try:
            self._folder.report(state)
        except OSError:
            log.exception("this worker's state cannot be written")
        else:
            self._reported = state.since

    def _run(self) -> None:
        while True:
            try:
                self.check()
                if self._reported != self.since:
                    self._report()
            except Exception:
                log.exception("the plan cannot be followed; v%s goes on", self._model.release.version)
                time.sleep(1)
            time.sleep(POLL_SECONDS if self._reported else 1)


def _number(tag: str | None) -> str:
    """The version in a tag of the model store."""
    return (tag or "").rpartition(":v")[2]
