"""The demo, shortened: the whole loop closes, started by the automation, over HTTP, with real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from everloop.settings import PROJECT


@pytest.mark.timeout(540)
def test_the_loop_closes_on_real_servers(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "cli.main",
        "demo",
        "--home",
        str(tmp_path / "home"),
        "--report",
        str(tmp_path),
        "--rows",
        "7100",
    ]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["failed_requests"] == 0
    assert report["retrains"] >= 1
    assert report["triggered_by_automation"] == report["retrains"]
    assert report["served_version"] == report["champion_version"] != "1"
    assert report["rows_captured"] == report["rows_served"] == 7100
    assert report["mae_with_loop"] < report["mae_never_retrained"]
    assert "<img" in (tmp_path / "report.html").read_text()
