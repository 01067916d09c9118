"""The registry: aliases move as a whole, a promotion can be repeated, and what is not there is None or a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from everloop.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry, Version
from everloop.domain.errors import RegistryError

Register = Callable[..., Version]
_numbers = count()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry in an MLflow of its own; each test uses a model of its own in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield Registry(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}")


@pytest.fixture
def model(registry: Registry) -> str:
    name = f"bikes-{next(_numbers)}"
    registry.client.create_registered_model(name)
    return name


@pytest.fixture
def register(registry: Registry, model: str) -> Register:
    def register_version(**tags: str) -> Version:
        made = registry.client.create_model_version(model, source="s3://models/bikes", tags=tags)
        return registry.version(model, str(made.version))

    return register_version


def aliases(registry: Registry, model: str) -> dict[str, str]:
    found = {alias: registry.at_alias(model, alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}
    return {alias: version.number for alias, version in found.items() if version is not None}


def test_an_alias_or_model_that_is_absent_is_none(registry: Registry, model: str) -> None:
    assert registry.champion(model) is None
    assert registry.champion("nobody-knows") is None
    assert registry.versions("nobody-knows") == []


def test_a_version_is_read_back_with_its_tags_and_called_by_one_name(registry: Registry, register: Register) -> None:
    version = register(verdict="pass")
    assert (version.number, version.tags) == ("1", {"verdict": "pass"})
    assert (version.label, version.bento) == (f"{version.model} v1", f"{version.model}:v1")
    registry.tag(version, approved_by="ada", verdict="fail")
    assert registry.version(version.model, "1").tags == {"approved_by": "ada", "verdict": "fail"}


def test_a_version_that_does_not_exist_is_refused(registry: Registry, model: str) -> None:
    with pytest.raises(RegistryError, match=f"{model} has no version 7; `everloop status` lists what is registered"):
        registry.version(model, "7")


def test_versions_are_listed_oldest_first_by_number_not_by_text(
    registry: Registry, model: str, register: Register
) -> None:
    for _ in range(11):
        register()
    assert [version.number for version in registry.versions(model)] == [str(number) for number in range(1, 12)]


def test_a_first_promotion_makes_a_champion_and_no_previous(registry: Registry, model: str, register: Register) -> None:
    assert registry.promote(register()) is None
    assert aliases(registry, model) == {CHAMPION: "1"}


def test_a_promotion_makes_the_champion_before_previous_and_returns_it(
    registry: Registry, model: str, register: Register
) -> None:
    first, second = register(), register()
    registry.promote(first)
    assert registry.promote(second) == first
    assert aliases(registry, model) == {CHAMPION: "2", PREVIOUS: "1"}
    registry.promote(register())
    assert aliases(registry, model) == {CHAMPION: "3", PREVIOUS: "2"}
    registry.promote(second)
    assert aliases(registry, model) == {CHAMPION: "2", PREVIOUS: "3"}


def test_a_promotion_that_is_repeated_changes_nothing(registry: Registry, model: str, register: Register) -> None:
    registry.promote(register())
    second = register()
    registry.promote(second)
    registry.promote(second)
    assert aliases(registry, model) == {CHAMPION: "2", PREVIOUS: "1"}


def test_a_promotion_that_died_between_its_two_aliases_is_completed_by_the_next(
    registry: Registry, model: str, register: Register
) -> None:
    first, second = register(), register()
    registry.promote(first)
    registry.set_alias(first, PREVIOUS)
    registry.promote(second)
    assert aliases(registry, model) == {CHAMPION: "2", PREVIOUS: "1"}


def test_a_promoted_challenger_waits_no_longer_and_another_goes_on_waiting(
    registry: Registry, model: str, register: Register
) -> None:
    waiting = register()
    registry.set_alias(waiting, CHALLENGER)
    registry.promote(register())
    assert aliases(registry, model) == {CHAMPION: "2", CHALLENGER: "1"}
    registry.promote(waiting)
    assert aliases(registry, model) == {CHAMPION: "1", PREVIOUS: "2"}


def test_a_removed_alias_points_to_nothing_also_when_removed_again(
    registry: Registry, model: str, register: Register
) -> None:
    registry.set_alias(register(), CHALLENGER)
    registry.remove_alias(model, CHALLENGER)
    registry.remove_alias(model, CHALLENGER)
    assert aliases(registry, model) == {}


def test_the_version_of_a_decision_is_the_newest_that_carries_it(
    registry: Registry, model: str, register: Register
) -> None:
    for decision in ("d1", "d2", "d1", "none"):
        register(decision=decision)
    assert registry.of_decision(model, "d1") == registry.version(model, "3")
    assert registry.of_decision(model, "d9") is None


def test_an_experiment_is_made_once_and_keeps_its_artifacts_where_it_is_told(
    registry: Registry, tmp_path: Path
) -> None:
    made = registry.experiment("bikes.monitoring", artifacts=tmp_path)
    assert registry.experiment("bikes.monitoring", artifacts=None) == made
    assert registry.client.get_experiment(made).artifact_location == (tmp_path / "bikes.monitoring").as_uri()
