"""Rollback: the way back, one version at a time, with the word of who wanted it; on a real registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from everloop.adapters.registry import CHAMPION, PREVIOUS, Registry, Version
from everloop.domain.errors import PromotionRefused
from everloop.settings import Settings
from tasks import approve as approving
from tasks import promote as promoting
from tasks import rollback as rolling
from tasks.rollback import roll_back
from tests.factories import make_spec


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """An MLflow registry of its own with three versions of 'bikes', promoted one after the other."""
    found = Registry(f"sqlite:///{tmp_path}/mlflow.db")
    for module in (rolling, promoting, approving):
        monkeypatch.setattr(module, "registry", lambda: found)
    for module in (rolling, promoting):
        monkeypatch.setattr(module, "settings", lambda: Settings(home=tmp_path))
    found.client.create_registered_model("bikes")
    for _ in range(3):
        number = str(found.client.create_model_version("bikes", source=str(tmp_path)).version)
        found.tag(found.version("bikes", number), verdict="pass", judged_against=str(int(number) - 1))
        promoting.promote.fn(found.version("bikes", number), "gates")
    return found


def alias(registry: Registry, name: str) -> str | None:
    """The number of the version under an alias."""
    found = registry.at_alias("bikes", name)
    return found.number if found else None


def test_a_rollback_goes_one_version_back_and_the_next_one_further(registry: Registry) -> None:
    """Until there is none; who, when and why stays with the version."""
    folder = rolling.settings().keeper_folder("bikes")
    folder.mkdir(parents=True)
    back, record = roll_back("bikes", reason="complaints", by="ada")
    assert (back.number, record.rolled_back, alias(registry, CHAMPION), alias(registry, PREVIOUS)) == (
        "2",
        "3",
        "2",
        "1",
    )
    tags = registry.version("bikes", "3").tags
    assert (tags["rolled_back_by"], tags["rollback_reason"], tags["rolled_back_to"]) == ("ada", "complaints", "2")
    assert tags["rolled_back_at"] == record.rolled_back_at.isoformat()
    assert (folder / "nudge").exists()
    roll_back("bikes", reason="worse", by="ada")
    assert (alias(registry, CHAMPION), alias(registry, PREVIOUS)) == ("1", None)
    with pytest.raises(PromotionRefused, match=r"no previous version to go back to \(its champion is bikes v1\)"):
        roll_back("bikes", reason="again", by="ada")


def test_a_rolled_back_version_waits_for_a_person(registry: Registry) -> None:
    """Its gates had passed; somebody knew better."""
    roll_back("bikes", reason="complaints", by="ada")
    third: Version = registry.version("bikes", "3")
    assert approving.approve.fn(make_spec(), third, None).status == "waiting"
    assert approving.approve.fn(make_spec(), third, "ada").by == "ada"


def test_a_promotion_that_was_killed_between_two_aliases_can_be_rolled_back(registry: Registry) -> None:
    """Champion and previous are then the same version; the way back is the one before it."""
    registry.set_alias(registry.version("bikes", "3"), PREVIOUS)
    back, _ = roll_back("bikes", reason="complaints", by="ada")
    assert (back.number, alias(registry, CHAMPION), alias(registry, PREVIOUS)) == ("2", "2", "1")


def test_taking_back_leaves_an_alias_alone_that_somebody_has_moved(registry: Registry) -> None:
    """A rollback by a person, or a newer release, stands."""
    third = registry.version("bikes", "3")
    record = promoting.PromotionRecord(
        model="bikes", version="3", previous="2", promoted_at="2024-01-01T00:00:00Z", approved_by="gates"
    )
    registry.set_alias(registry.version("bikes", "1"), CHAMPION)
    promoting.take_back(third, record, "refused")
    assert alias(registry, CHAMPION) == "1"
    assert registry.version("bikes", "3").tags["verdict"] == "fail"
