"""Capture: what was appended is in the file, whole, whatever becomes of the disk or the process."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop.settings import PROJECT
from serving.capture import Capture


def lines_in(folder: Path) -> list[dict[str, Any]]:
    """Every line under `folder` that is JSON."""
    found = []
    for path in sorted(folder.glob("date=*/*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return found


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """While the block runs, a write beyond `size` bytes fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_appended_lines_are_in_todays_file_in_order(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    capture = Capture(tmp_path / "bikes")
    capture.append([{"n": 1}, {"n": 2}])
    capture.append([{"n": 3, "city": "Łódź\n"}])
    assert lines_in(tmp_path / "bikes") == [{"n": 1}, {"n": 2}, {"n": 3, "city": "Łódź\n"}]
    days = {f"date={moment:%Y-%m-%d}" for moment in (before, datetime.now(UTC))}
    assert {path.name for path in (tmp_path / "bikes").iterdir()} <= days


def test_numpy_values_are_written_as_numbers(tmp_path: Path) -> None:
    Capture(tmp_path).append([{"n": np.int64(1), "x": np.float32(0.5), "b": np.bool_(True)}])
    assert lines_in(tmp_path) == [{"n": 1, "x": 0.5, "b": True}]


def test_every_writer_has_a_file_of_its_own(tmp_path: Path) -> None:
    for writer in (Capture(tmp_path), Capture(tmp_path)):
        writer.append([{"n": 1}])
    assert len(list(tmp_path.glob("date=*/*.jsonl"))) == 2


def test_nothing_is_made_before_the_first_line(tmp_path: Path) -> None:
    Capture(tmp_path / "bikes")
    assert not (tmp_path / "bikes").exists()


def test_a_folder_that_is_a_file_is_an_os_error_and_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "bikes").write_text("mine")
    with pytest.raises(OSError, match=r"bikes"):
        Capture(tmp_path / "bikes").append([{"n": 1}])
    assert (tmp_path / "bikes").read_text() == "mine"


def test_lines_after_a_torn_write_are_whole(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    capture.append([{"n": 1}])
    with files_no_larger_than(20), pytest.raises(OSError, match="File too large"):
        capture.append([{"n": 2, "text": "x" * 50}])
    (path,) = tmp_path.glob("date=*/*.jsonl")
    assert path.stat().st_size == 20
    capture.append([{"n": 3}])
    capture.append([{"n": 4}])
    assert lines_in(tmp_path) == [{"n": 1}, {"n": 3}, {"n": 4}]


def test_a_write_that_could_not_begin_costs_no_line_but_its_own(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    capture.append([{"n": 1}])
    with files_no_larger_than(8), pytest.raises(OSError, match="File too large"):
        capture.append([{"n": 2}])
    capture.append([{"n": 3}])
    assert lines_in(tmp_path) == [{"n": 1}, {"n": 3}]


def test_what_was_appended_survives_a_process_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from serving.capture import Capture\n"
        "Capture(Path(sys.argv[1])).append([{'n': 1}, {'n': 2}])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=PROJECT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert lines_in(tmp_path) == [{"n": 1}, {"n": 2}]
