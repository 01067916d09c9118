"""The kinds of value that a spec is made of: durations, histories, persistences, and frozen tables of them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

_DURATION = re.compile(r"^\s*(\d+)\s*(s|m|h|d|w)\s*$")
_SHARE = re.compile(r"^\s*(\d{1,2})\s*%\s*$")
_UNIT = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: str) -> timedelta:
    """The time span that `text` such as '90s', '30m', '6h', '7d' or '2w' names.

    Raises:
        ValueError: the text is not a whole number and one of the units s, m, h, d, w, or the span is zero.
    """
    match = _DURATION.match(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a duration; write a whole number above 0 and a unit: 90s, 30m, 6h, 7d or 2w")
    try:
        return timedelta(**{_UNIT[match[2]]: int(match[1])})
    except OverflowError:
        raise ValueError(f"{text!r} is not a duration: it is too long; the longest is 999999999d") from None


def _is_duration(text: str) -> str:
    parse_duration(text)
    return text


def parse_share(text: str) -> float | None:
    """The share of the rows that a history such as '20%' names, None if `text` is no whole percentage from 1 to 99."""
    match = _SHARE.match(text)
    return int(match[1]) / 100 if match and 1 <= int(match[1]) <= 99 else None


def _is_history(text: str) -> str:
    if text == "all" or parse_share(text) is not None:
        return text
    try:
        return _is_duration(text)
    except ValueError as exc:
        raise ValueError(f"{exc}; or write 'all', or a share of the rows from '1%' to '99%'") from None


def _is_persistence(text: str) -> str:
    match = re.match(r"^(\d+) of (\d+)$", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= 20:
        raise ValueError(f"{text!r} is not a persistence; write 'n of m' with 1 <= n <= m <= 20, for example '2 of 3'")
    return text


Duration = Annotated[str, AfterValidator(_is_duration)]
History = Annotated[str, AfterValidator(_is_history)]
Persistence = Annotated[str, AfterValidator(_is_persistence)]
Column = Annotated[str, Field(min_length=1)]
Histories = Annotated[
    Annotated[History, Tag("<value>")] | Annotated[tuple[History, ...], Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, list | tuple) else "<value>"),
]


class Frozen(BaseModel):
    """A value: unknown keys are refused and nothing changes after it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Table(Frozen):
    """A table of the spec: its numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)
