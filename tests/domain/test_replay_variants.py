"""Tests of everloop/domain/replay_variants.py: policies by name, in a line, and in a file."""

from __future__ import annotations

import pytest

from everloop.domain.errors import SpecError
from everloop.domain.monitor_spec import MonitorSpec, RowWindow
from everloop.domain.replay_variants import as_snippet, default_variants, inline_variant, table_variant


def test_the_default_is_replayed_beside_a_policy_that_decides_otherwise() -> None:
    assert list(default_variants(MonitorSpec(on_growth=0.4))) == ["spec", "default"]


def test_the_default_is_not_replayed_twice() -> None:
    assert list(default_variants(MonitorSpec(window=RowWindow(rows=777), every="2h"))) == ["spec"]


def test_an_inline_policy_changes_what_it_names_and_keeps_the_rest() -> None:
    found = inline_variant("max_loss_increase=0.2, persistence=1 of 1", MonitorSpec(cooldown="9d"))
    assert (found.max_loss_increase, found.persistence, found.cooldown) == (0.2, "1 of 1", "9d")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_loss=0.2", "'max_loss' is no key of \\[monitor\\]; allowed: every, window"),
        ("often", "'often' is no change; write key=value with commas between, 'spec', 'default', or a file"),
        ("on_growth=much", "on_growth is 'much': .* correct it"),
        ("persistence=3 of 2", "persistence is '3 of 2': .*write 'n of m'"),
    ],
)
def test_a_policy_that_is_none_is_refused_with_a_sentence(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        inline_variant(text, MonitorSpec())


def test_a_table_changes_the_shipped_default() -> None:
    assert table_variant("[monitor]\non_growth = 0.4", origin="p.toml") == MonitorSpec(on_growth=0.4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("on_growth = 0.5", "p.toml: there is no \\[monitor\\] table"),
        ("[monitor", "p.toml: not valid TOML"),
        ("[monitor]\nbudget_per_day = 0", "p.toml: budget_per_day is 0"),
    ],
)
def test_a_file_that_declares_no_policy_is_refused_with_a_sentence(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        table_variant(text, origin="p.toml")


def test_a_snippet_makes_the_policy_again() -> None:
    policy = MonitorSpec(on_growth=0.5, window=RowWindow(rows=300), slices=("season",), persistence="1 of 2")
    assert table_variant(as_snippet(policy), origin="snippet") == policy
