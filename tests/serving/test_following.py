"""Hot swap: all workers prepare, then all turn, and whatever is wrong with a version, the old one goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from everloop.domain.errors import ServingRefused
from serving.following import Fixed, Following
from serving.models import LoadedModel, Release
from serving.plan import Plan, PlanFolder, Refusal


def loaded(tag: str) -> LoadedModel:
    """A version of which only the name is known."""
    model, _, number = tag.partition(":v")
    release = Release(model=model, version=number, code="same")
    return LoadedModel(release, manifest=None, runtime=None, contract=None)  # type: ignore[arg-type]


class Service:
    """A keeper's side of a plan, a store that knows versions, and what workers told."""

    def __init__(self, folder: Path, *known: str) -> None:
        self.known = {f"bikes:v{number}" for number in ("1", *known)}
        self.loads: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.while_loading: Callable[[], None] = lambda: None
        self.folder = PlanFolder(folder)
        self.turn = 0
        self.folder.create(Plan(turn=0, serve="bikes:v1"))

    def load(self, tag: str) -> LoadedModel:
        """The version, if it is known."""
        self.loads.append(tag)
        hook, self.while_loading = self.while_loading, lambda: None
        hook()
        if tag not in self.known:
            raise ServingRefused(f"/home/ada/store/{tag} answers otherwise")
        return loaded(tag)

    def worker(self) -> Following:
        """A worker that starts now."""
        return Following(
            self.folder,
            load=self.load,
            on_prepared=lambda model, seconds: self.told.append(("prepared", model.release.tag)),
            on_swap=lambda model: self.told.append(("swapped", model.release.tag)),
            on_refused=lambda tag: self.told.append(("refused", tag)),
        )

    def prepare(self, tag: str | None) -> None:
        """Ask the workers to prepare a version beside the one that answers."""
        plan = self.folder.read()
        self.folder.write(plan.model_copy(update={"prepare": tag}))

    def write(self, tag: str) -> None:
        """Write the plan that serves a version; it is in force from the turn on."""
        self.turn += 1
        self.folder.write(Plan(turn=self.turn, serve=tag))

    def serve(self, tag: str) -> None:
        """Write it and turn."""
        self.write(tag)
        self.folder.open_turn().set(self.turn)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "plan", "2", "3")


def version_of(worker: Following) -> str:
    """The version that answers now."""
    return worker.current.release.version


def test_a_worker_starts_with_the_version_of_the_plan_and_says_so(service: Service) -> None:
    """It loads nothing else."""
    worker = service.worker()
    assert (version_of(worker), service.loads) == ("1", ["bikes:v1"])
    (state,) = worker.states()
    assert (state.pid, state.version, state.prepared, state.refused) == (os.getpid(), "1", None, None)
    assert state.since == worker.since


def test_a_worker_whose_version_cannot_be_loaded_does_not_start(service: Service) -> None:
    """There is nothing it could answer with."""
    service.serve("bikes:v9")
    with pytest.raises(ServingRefused, match="bikes:v9 answers otherwise"):
        service.worker()


def test_a_version_is_prepared_once_and_answers_nothing_before_the_turn(service: Service) -> None:
    """However often the plan is looked at, or written again."""
    worker = service.worker()
    service.prepare("bikes:v2")
    for _ in range(3):
        worker.check()
        service.folder.write(service.folder.read())
    assert (version_of(worker), service.loads) == ("1", ["bikes:v1", "bikes:v2"])
    assert [state.prepared for state in worker.states()] == ["2"]
    assert service.told == [("prepared", "bikes:v2")]


def test_the_turn_switches_on_the_very_next_look(service: Service) -> None:
    """Without a check of the plan between, in every worker, and without loading again."""
    workers = [service.worker(), service.worker()]
    since = workers[0].since
    service.prepare("bikes:v2")
    for worker in workers:
        worker.check()
    service.write("bikes:v2")
    assert [version_of(worker) for worker in workers] == ["1", "1"]
    service.folder.open_turn().set(service.turn)
    assert [version_of(worker) for worker in workers] == ["2", "2"]
    assert service.loads == ["bikes:v1"] * 2 + ["bikes:v2"] * 2
    assert service.told[-2:] == [("swapped", "bikes:v2")] * 2
    assert workers[0].since > since
    assert [worker.plan.serve for worker in workers] == ["bikes:v2"] * 2


def test_a_prepared_version_is_kept_when_its_plan_is_seen_before_its_turn(service: Service) -> None:
    """Between the two the worker looks at the plan, which no longer asks to prepare it."""
    worker = service.worker()
    service.prepare("bikes:v2")
    worker.check()
    service.write("bikes:v2")
    worker.check()
    service.folder.open_turn().set(service.turn)
    assert (version_of(worker), service.loads) == ("2", ["bikes:v1", "bikes:v2"])


def test_a_rollback_is_a_swap_like_any_other(service: Service) -> None:
    """The version before is loaded again."""
    worker = service.worker()
    for tag in ("bikes:v2", "bikes:v1"):
        service.prepare(tag)
        worker.check()
        service.serve(tag)
        assert worker.current.release.tag == tag
    assert service.loads == ["bikes:v1", "bikes:v2", "bikes:v1"]


def test_a_refused_version_keeps_the_old_one_and_says_why_without_a_folder(service: Service) -> None:
    """The keeper reads the reason, and GET /model tells it."""
    worker = service.worker()
    service.prepare("bikes:v9")
    worker.check()
    assert version_of(worker) == "1"
    (state,) = worker.states()
    assert state.refused == Refusal(version="9", reason="…/bikes:v9 answers otherwise")
    assert state.prepared is None
    assert service.told == [("refused", "bikes:v9")]


def test_a_refusal_is_forgotten_when_the_plan_wants_the_version_no_more_and_it_is_tried_again(
    service: Service,
) -> None:
    """What failed once may have been the disk."""
    worker = service.worker()
    service.prepare("bikes:v9")
    worker.check()
    service.prepare(None)
    worker.check()
    assert [state.refused for state in worker.states()] == [None]
    service.known.add("bikes:v9")
    service.prepare("bikes:v9")
    worker.check()
    assert [(state.prepared, state.refused) for state in worker.states()] == [("9", None)]


def test_a_version_that_is_wanted_no_more_is_let_go(service: Service) -> None:
    """Another worker refused it, so none serves it."""
    worker = service.worker()
    service.prepare("bikes:v2")
    worker.check()
    service.prepare(None)
    worker.check()
    assert [state.prepared for state in worker.states()] == [None]
    service.prepare("bikes:v3")
    worker.check()
    service.serve("bikes:v3")
    assert version_of(worker) == "3"


def test_a_worker_that_starts_between_preparation_and_turn_serves_the_new_version_at_the_turn(
    service: Service,
) -> None:
    """It was not asked in time; it answers late, but right."""
    service.prepare("bikes:v2")
    late = service.worker()
    assert version_of(late) == "1"
    service.serve("bikes:v2")
    assert (version_of(late), service.loads) == ("2", ["bikes:v1", "bikes:v2"])


def test_a_worker_that_starts_after_the_plan_is_written_and_before_its_turn_stays_with_it(service: Service) -> None:
    """The turn finds it where it should be."""
    service.write("bikes:v2")
    late = service.worker()
    service.folder.open_turn().set(service.turn)
    assert (version_of(late), service.loads, service.told) == ("2", ["bikes:v2"], [])


def test_a_plan_that_turns_while_a_worker_loads_its_first_version_is_the_one_it_starts_with(service: Service) -> None:
    """It never answers with a version that the others have left."""
    service.while_loading = lambda: service.serve("bikes:v2")
    worker = service.worker()
    assert (version_of(worker), service.loads) == ("2", ["bikes:v1", "bikes:v2"])
    assert [state.version for state in worker.states()] == ["2"]


def test_a_plan_that_is_rewritten_while_a_version_is_loaded_is_followed_next(service: Service) -> None:
    """The change is not overlooked because something else was being done."""
    worker = service.worker()
    service.prepare("bikes:v2")
    service.while_loading = lambda: service.prepare("bikes:v3")
    worker.check()
    worker.check()
    assert [state.prepared for state in worker.states()] == ["3"]
    service.serve("bikes:v3")
    assert version_of(worker) == "3"


def test_a_turn_to_a_version_that_cannot_be_loaded_keeps_the_old_one_and_tries_it_once(service: Service) -> None:
    """A request is answered with what there is, and not slowed down by trying again and again."""
    worker = service.worker()
    service.serve("bikes:v9")
    assert [version_of(worker) for _ in range(3)] == ["1"] * 3
    assert service.loads == ["bikes:v1", "bikes:v9"]
    assert service.told == [("refused", "bikes:v9")]


def test_a_turn_to_a_version_that_cannot_be_loaded_is_reported_with_its_reason(service: Service) -> None:
    """GET /model shows which worker stayed behind, and why."""
    worker = service.worker()
    service.serve("bikes:v9")
    assert version_of(worker) == "1"
    worker.check()
    assert [state.refused and state.refused.version for state in worker.states()] == ["9"]


def test_a_turn_to_the_version_that_answers_loads_nothing(service: Service) -> None:
    """It is there already."""
    worker = service.worker()
    service.serve("bikes:v1")
    assert (version_of(worker), service.loads, service.told) == ("1", ["bikes:v1"], [])


def test_many_threads_that_look_at_once_swap_once(service: Service) -> None:
    """Whoever is first does it for all."""
    worker = service.worker()
    service.prepare("bikes:v2")
    worker.check()
    service.serve("bikes:v2")
    together = threading.Barrier(8)
    seen: list[str] = []

    def look() -> None:
        together.wait(20)
        seen.append(version_of(worker))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert version_of(worker) == "2"
    assert service.told.count(("swapped", "bikes:v2")) == 1


def test_a_turn_that_comes_while_its_version_is_being_prepared_leaves_nothing_behind(service: Service) -> None:
    """No second copy of the model stays in memory."""
    worker = service.worker()
    service.prepare("bikes:v2")

    def turn_and_ask() -> None:
        service.serve("bikes:v2")
        assert version_of(worker) == "2"

    service.while_loading = turn_and_ask
    worker.check()
    worker.check()
    assert version_of(worker) == "2"
    assert [(state.version, state.prepared) for state in worker.states()] == [("2", None)]


def test_the_plan_is_followed_from_a_thread(tmp_path: Path) -> None:
    """It prepares, swaps and reports without being asked."""
    prepared = threading.Event()
    folder = PlanFolder(tmp_path)
    folder.create(Plan(turn=0, serve="bikes:v1"))
    worker = Following(folder, load=loaded, on_prepared=lambda _, __: prepared.set())
    worker.follow()
    folder.write(Plan(turn=0, serve="bikes:v1", prepare="bikes:v2"))
    assert prepared.wait(20)
    swapped = threading.Event()
    folder.write(Plan(turn=1, serve="bikes:v2"))
    folder.open_turn().set(1)
    while not swapped.wait(0.01):
        if [state.version for state in worker.states()] == ["2"]:
            swapped.set()
    assert version_of(worker) == "2"


def test_a_service_that_follows_nothing_serves_its_version() -> None:
    """A bento by itself, or a rehearsal."""
    fixed = Fixed(loaded("bikes:v1"))
    assert (fixed.current.release.tag, fixed.plan) == ("bikes:v1", None)
    (state,) = fixed.states()
    assert (state.pid, state.version, state.since) == (os.getpid(), "1", fixed.since)


def test_a_refusal_by_another_worker_or_at_a_hand_over_is_counted_once(service: Service) -> None:
    """So /metrics of every worker tells of it, and of its own refusal not twice."""
    worker = service.worker()
    refused = Refusal(version="3", reason="its bento does not start")
    service.folder.write(service.folder.read().model_copy(update={"refused": refused}))
    worker.check()
    service.folder.write(service.folder.read().model_copy(update={"registry_problem": "OSError"}))
    worker.check()
    assert service.told == [("refused", "bikes:v3")]

    service.folder.write(Plan(turn=0, serve="bikes:v1", prepare="bikes:v9"))
    worker.check()
    own = Refusal(version="9", reason="answers otherwise")
    service.folder.write(Plan(turn=0, serve="bikes:v1", refused=own))
    worker.check()
    assert service.told == [("refused", "bikes:v3"), ("refused", "bikes:v9")]


def test_whoever_asks_while_a_late_worker_loads_gets_the_new_version(service: Service) -> None:
    """Not the old one, which is not champion any more."""
    worker = service.worker()
    loading, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        loading.set()
        assert go_on.wait(5)

    service.while_loading = hold
    service.serve("bikes:v2")
    follower = threading.Thread(target=worker._take_turn)
    follower.start()
    assert loading.wait(5)
    found: list[str] = []
    asking = threading.Thread(target=lambda: found.append(version_of(worker)))
    asking.start()
    go_on.set()
    asking.join(5)
    follower.join(5)
    assert found == ["2"]


def test_a_worker_whose_state_cannot_be_written_answers_and_tells_later(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may be full."""

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(service.folder, "report", full)
        worker = service.worker()
        service.serve("bikes:v2")
        assert version_of(worker) == "2"
        assert service.folder.workers() == []
    worker._report()
    assert [state.version for state in service.folder.workers()] == ["2"]
