"""What must not go live does not, and what is live stays live."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from everloop.adapters.registry import Registry
from tests.end_to_end.conftest import MODEL, Loop

SOURCE = Path("data") / "bike_sharing" / "hour.csv"


@pytest.fixture
def train_on(loop: Loop, tmp_path: Path) -> Callable[[Callable[[pd.DataFrame], pd.DataFrame]], str]:
    """Train on the loop's source after a change, in a process of its own; what it printed."""

    def train(change: Callable[[pd.DataFrame], pd.DataFrame]) -> str:
        (tmp_path / SOURCE).parent.mkdir(parents=True)
        change(pd.read_csv(loop.settings.data / SOURCE)).to_csv(tmp_path / SOURCE, index=False)
        words = ("-m", "tests.end_to_end.killed", "never", "train", f"model={MODEL}")
        done = loop.run(*words, check=False, EVERLOOP_DATA=str(tmp_path))
        return done.stdout + done.stderr

    return train


def test_broken_data_trains_nothing(loop: Loop, train_on: Callable[..., str]) -> None:
    registry = Registry(loop.settings.mlflow)
    before, champion = len(registry.versions(MODEL)), registry.champion(MODEL)
    said = train_on(lambda rows: rows.assign(temp=rows["temp"].where(rows.index >= 10, 40.0)))
    assert "DataBlocked" in said
    assert "temp: 10 values are outside [0, 1]" in said
    assert (len(registry.versions(MODEL)), registry.champion(MODEL)) == (before, champion)


def test_a_challenger_that_learned_noise_is_kept_and_never_released(loop: Loop, train_on: Callable[..., str]) -> None:
    registry = Registry(loop.settings.mlflow)
    champion = registry.champion(MODEL)
    said = train_on(lambda rows: rows.assign(cnt=rows["cnt"].sample(frac=1, random_state=1).to_numpy()))
    assert "is kept and not released (fail)" in said
    newest = registry.versions(MODEL)[-1]
    assert newest.tags["verdict"] == "fail"
    words = (
        "-m",
        "tests.end_to_end.killed",
        "never",
        "release",
        f"model={MODEL}",
        f"version={newest.number}",
        "approved_by=ada",
    )
    refused = loop.run(*words, check=False)
    assert refused.returncode == 1
    assert "its gates say fail" in refused.stderr
    assert registry.champion(MODEL) == champion
