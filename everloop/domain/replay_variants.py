"""Policies by the names that a replay gives them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from pydantic import ValidationError

from everloop.domain.errors import SpecError
from everloop.domain.monitor_spec import MonitorSpec

OF_THE_SPEC, SHIPPED = "spec", "default"


def default_variants(policy: MonitorSpec) -> dict[str, MonitorSpec]:
    """The model's policy and, if it is another, the shipped default."""
    shipped = {} if decides_like(policy, MonitorSpec()) else {SHIPPED: MonitorSpec()}
    return {OF_THE_SPEC: policy} | shipped


def decides_like(one: MonitorSpec, other: MonitorSpec) -> bool:
    """True if both decide the same in a replay, where windows are cut by the replay and nothing is scheduled."""
    unused = {"every", "window"}
    return one.model_dump(exclude=unused) == other.model_dump(exclude=unused)


def inline_variant(text: str, policy: MonitorSpec) -> MonitorSpec:
    """`policy` with the changes that `text` names: 'max_loss_increase=0.2,persistence=1 of 1'.

    Raises:
        SpecError: a change is no `key=value`, or the policy does not allow it.
    """
    changes: dict[str, object] = {}
    for part in text.split(","):
        key, is_change, value = part.partition("=")
        if not is_change:
            raise SpecError(
                f"policy {text!r}: {part.strip()!r} is no change; write key=value with commas between, 'spec', 'default', or a "
                "file with a [monitor] table"
            )
        changes[key.strip()] = value.strip()
    return _validated(changes, policy, origin=f"policy {text!r}")


def table_variant(text: str, *, origin: str) -> MonitorSpec:
    """The policy that the `[monitor]` table of a TOML text declares over the shipped default.

    Raises:
        SpecError: it is no TOML, has no such table, or breaks a rule.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SpecError(f"{origin}: not valid TOML: {exc}; correct the file") from exc
    if not isinstance(values.get("monitor"), dict):
        raise SpecError(f"{origin}: there is no [monitor] table; add one with the keys that differ from the default")
    return _validated(values["monitor"], MonitorSpec(), origin=origin)


def as_snippet(policy: MonitorSpec) -> str:
    """The `[monitor]` table that makes `policy` out of the shipped default."""
    shipped = MonitorSpec().model_dump(mode="json")
    changed = {key: value for key, value in policy.model_dump(mode="json").items() if value != shipped[key]}
    lines = [f"{key} = {_as_toml(value)}" for key, value in changed.items() if value is not None]
    return "\n".join(["[monitor]", *lines])


def _validated(changes: Mapping[str, object], policy: MonitorSpec, *, origin: str) -> MonitorSpec:
    unknown = [key for key in changes if key not in MonitorSpec.model_fields]
    if unknown:
        raise SpecError(
            f"{origin}: {unknown[0]!r} is no key of [monitor]; allowed: {', '.join(MonitorSpec.model_fields)}"
        )
    try:
        return MonitorSpec.model_validate({**policy.model_dump(), **changes})
    except ValidationError as exc:
        error = exc.errors()[0]
        key = ".".join(str(part) for part in error["loc"] if not str(part).startswith("<"))
        message = error["msg"].removeprefix("Value error, ")
        raise SpecError(f"{origin}: {key} is {error['input']!r}: {message}; correct it") from exc


def _as_toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_as_toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_as_toml(part) for part in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
