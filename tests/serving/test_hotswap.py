"""Hot swap: the champion answers as soon as it can, and whatever is wrong with it, the old version goes on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from everloop.adapters.registry import Version
from everloop.domain.errors import ServingRefused
from serving.hotswap import HotSwap, stored_model_folder
from serving.runtime import LoadedModel, Release


def loaded(number: str, *, code: str = "same") -> LoadedModel:
    return LoadedModel(Release(model="bikes", version=number, code=code), manifest=None, pipeline=None)  # type: ignore[arg-type]


def version(number: str) -> Version:
    return Version(model="bikes", number=number, run_id="run", source="here")


class FakeRegistry:
    """Says which version is champion, loads what it was told to know, and counts."""

    def __init__(self, *known: LoadedModel) -> None:
        self.live: str | None = "1"
        self.known = {model.release.version: model for model in known}
        self.loads: list[str] = []
        self.results: Counter[str] = Counter()
        self.swap = HotSwap(
            loaded("1"),
            champion=lambda: version(self.live) if self.live else None,
            load=self.load,
            poll_seconds=0.001,
            on_swap=lambda result: self.results.update([result]),
        )

    def load(self, wanted: Version) -> LoadedModel:
        self.loads.append(wanted.number)
        if wanted.number not in self.known:
            raise ServingRefused(f"{wanted.bento} is not in the bento store")
        return self.known[wanted.number]

    def check(self, live: str | None) -> HotSwap:
        self.live = live
        self.swap.check()
        return self.swap


@pytest.mark.parametrize("live", ["1", None], ids=["the same champion", "no champion"])
def test_nothing_is_loaded_while_no_other_version_is_champion(live: str | None) -> None:
    registry = FakeRegistry()
    swap = registry.check(live)
    assert (swap.current.release.version, swap.refused, registry.loads) == ("1", None, [])


def test_a_new_champion_is_swapped_in_and_loaded_once() -> None:
    registry = FakeRegistry(loaded("2"))
    since = registry.swap.since
    registry.check("2")
    swap = registry.check("2")
    assert swap.current is registry.known["2"]
    assert swap.since > since
    assert (swap.refused, registry.loads, registry.results) == (None, ["2"], {"done": 1})


def test_a_rollback_is_a_swap_like_any_other() -> None:
    registry = FakeRegistry(loaded("1"), loaded("2"))
    registry.check("2")
    assert registry.check("1").current.release.version == "1"
    assert registry.results == {"done": 2}


def test_a_champion_that_cannot_be_loaded_is_refused_once_and_the_old_one_stays() -> None:
    registry = FakeRegistry()
    registry.check("2")
    swap = registry.check("2")
    assert swap.current.release.version == "1"
    assert swap.refused == {"version": "2", "reason": "bikes:v2 is not in the bento store"}
    assert (registry.loads, registry.results) == (["2"], {"refused": 1})


def test_a_champion_of_other_code_is_refused_with_the_way_out() -> None:
    swap = FakeRegistry(loaded("2", code="other")).check("2")
    assert swap.current.release.version == "1"
    assert swap.refused == {
        "version": "2",
        "reason": "bikes:v2 was built from other code or dependencies than this service; "
        "start its bento with `everloop restart bikes`",
    }


@pytest.mark.parametrize("live", ["1", None])
def test_a_refusal_is_forgotten_when_its_version_is_champion_no_more_and_then_tried_again(live: str | None) -> None:
    registry = FakeRegistry()
    registry.check("2")
    assert registry.check(live).refused is None
    registry.known["2"] = loaded("2")
    assert registry.check("2").current.release.version == "2"


def test_the_version_after_a_refused_one_is_tried() -> None:
    registry = FakeRegistry(loaded("3"))
    registry.check("2")
    swap = registry.check("3")
    assert (swap.current.release.version, swap.refused) == ("3", None)
    assert registry.results == {"refused": 1, "done": 1}


def follow(*answers: Callable[[], Version | None]) -> tuple[HotSwap, list[str]]:
    """A swap that has followed an alias that answered `answers`, one a look, and its results."""
    results: list[str] = []
    seen, left = threading.Event(), iter(answers)

    def champion() -> Version | None:
        answer = next(left, None)
        if answer is None:
            seen.set()
            threading.Event().wait()  # the thread rests here until the process ends
        return answer()

    load = lambda wanted: loaded(wanted.number)  # noqa: E731
    swap = HotSwap(loaded("1"), champion=champion, load=load, poll_seconds=0.001, on_swap=results.append)
    swap.follow()
    assert seen.wait(20)
    return swap, results


def unreachable() -> Version | None:
    raise ConnectionError("connection refused")


def test_the_alias_is_followed_from_a_thread() -> None:
    swap, results = follow(lambda: version("2"), lambda: version("3"))
    assert (swap.current.release.version, results) == ("3", ["done", "done"])


def test_a_registry_that_cannot_be_reached_is_told_and_followed_again_when_it_is_back() -> None:
    swap, results = follow(unreachable, lambda: version("1"), unreachable)
    assert (swap.current.release.version, results) == ("1", ["registry unreachable"] * 2)
    swap, results = follow(unreachable, lambda: version("2"))
    assert (swap.current.release.version, results) == ("2", ["registry unreachable", "done"])


def test_a_version_that_was_never_packaged_here_is_refused_with_the_command_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "True")
    with pytest.raises(
        ServingRefused, match=r"bikes:v999 is not in the bento store; run `prefect deployment run release/bikes`"
    ):
        stored_model_folder(version("999"))
