"""Tests of cli/tune.py: what tuning prints."""

from __future__ import annotations

import tomllib

import pytest

from cli.tune import show_tuning, verdicts
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.replay_tuning import Comparison, Side, TuningReport


def a_comparison(verdict: str, gain: float, **changes: object) -> Comparison:
    return Comparison.model_validate(
        {
            "other": "current",
            "gain": gain,
            "low": gain - 1,
            "high": gain + 1,
            "more_retrains": 2,
            "verdict": verdict,
            **changes,
        }
    )


def a_report(*comparisons: Comparison) -> TuningReport:
    sides = {
        name: Side(metric=12.5, retrains=3, rejected=1, rows_trained=900) for name in ("current", "default", "chosen")
    }
    return TuningReport(
        model="toy",
        metric="mae",
        windows_early=30,
        windows_late=20,
        tried=66,
        most_retrains=9,
        chosen=MonitorSpec(on_growth=0.4),
        early=sides,
        late=sides,
        comparisons=comparisons,
    )


@pytest.mark.parametrize(
    ("verdict", "gain", "sentence"),
    [
        ("better", 3.0, "against current: mean loss 3 lower .*, \\+2 retrainings: better than it"),
        ("worse", -3.0, "against current: mean loss 3 higher .*: worse than it: keep what you have"),
        ("within noise", 0.5, "\\(90 % interval of the gain -0.5 to \\+1.5\\).*within noise, no reason to change"),
    ],
)
def test_says_what_the_choice_gains_and_costs(verdict: str, gain: float, sentence: str) -> None:
    import re

    assert re.search(sentence, verdicts(a_report(a_comparison(verdict, gain)))[0])


def test_prints_both_parts_and_a_table_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    show_tuning(a_report(a_comparison("better", 3.0)))
    out = capsys.readouterr().out
    assert "chosen on the first 30 windows with at most 9 retrainings there, reported on the last 20 windows" in out
    snippet = out[out.index("[monitor]") :]
    assert tomllib.loads(snippet) == {"monitor": {"on_growth": 0.4}}
