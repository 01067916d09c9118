"""What must agree: deployments with specs, documents with commands, files with the rules of the house."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from cli.spec_docs import spec_markdown
from everloop.domain.spec_values import parse_duration
from everloop.settings import PROJECT, WORK_POOL, Settings

FLOWS = {"train", "release", "monitor"}
SETTINGS = Settings()
DEPLOYMENTS = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
README = (PROJECT / "README.md").read_text()


@pytest.mark.parametrize("model", SETTINGS.model_names())
def test_every_model_has_its_three_deployments(model: str) -> None:
    mine = {d["entrypoint"].split(":")[1]: d for d in DEPLOYMENTS if d["name"] == model}
    assert set(mine) == FLOWS
    for flow, deployment in mine.items():
        assert deployment["entrypoint"] == f"flows/{flow}.py:{flow}"
        assert deployment["parameters"] == {"model": model}
        assert deployment["work_pool"]["name"] == WORK_POOL
        assert deployment["concurrency_limit"]["limit"] == 1
    (schedule,) = mine["monitor"]["schedules"]
    assert schedule["interval"] == parse_duration(SETTINGS.spec(model).monitor.every).total_seconds()
    (trigger,) = mine["train"]["triggers"]
    assert trigger["match"] == {"prefect.resource.id": f"everloop.model.{model}"}
    assert trigger["expect"] == ["everloop.model.degraded"]
    assert set(trigger["parameters"]) == {"model", "reason", "decision", "window"}


def test_every_deployment_has_a_spec() -> None:
    assert {deployment["name"] for deployment in DEPLOYMENTS} == set(SETTINGS.model_names())


def test_no_two_models_share_a_port() -> None:
    ports = [SETTINGS.port_of(SETTINGS.spec(model)) for model in SETTINGS.model_names()]
    assert len(ports) == len(set(ports))


def test_the_spec_reference_is_current() -> None:
    assert (PROJECT / "docs" / "spec.md").read_text() == spec_markdown(), "run `make docs`"


def test_the_readme_names_only_commands_that_exist() -> None:
    named = set(re.findall(r"everloop ([a-z-]+)", README))
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert named <= known, named - known


def test_the_readme_fits_its_bounds() -> None:
    assert len(README.splitlines()) <= 150
    assert "@@" not in README


@pytest.mark.parametrize("command", [c.name or c.callback.__name__ for c in app.registered_commands if c.callback])
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert len(shown.stdout.splitlines()) > 5


def test_no_file_names_a_package_registry() -> None:
    options = "|".join(("--(extra-)?index" + "-url", "--find" + "-links", "https?://[^ ]+/sim" + "ple"))
    command = ["git", "grep", "-nIE", "-e", options]
    assert subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False).stdout == ""
