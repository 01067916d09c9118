"""The door: whoever carries one of the keys comes in, in either header."""

from __future__ import annotations

import pytest

from serving.doors import Keys


@pytest.mark.parametrize(
    "header",
    [
        (b"x-api-key", b"new"),
        (b"x-api-key", b"old"),
        (b"authorization", b"Bearer new"),
        (b"authorization", b"bearer old"),
        (b"authorization", b"BEARER  old "),
    ],
)
def test_every_key_of_a_rotation_opens_in_either_header(header: tuple[bytes, bytes]) -> None:
    """The word Bearer is read in any case, as HTTP has it."""
    assert Keys(["new", "old"]).admit([(b"accept", b"*/*"), header])


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"older")],
        [(b"x-api-key", b"ol")],
        [(b"x-api-key", b"OLD")],
        [(b"x-api-key", b"new,old")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"old")],
        [(b"authorization", b"Basic old")],
        [(b"authorization", "Bearer ключ".encode())],
        [(b"cookie", b"x-api-key=old")],
    ],
)
def test_nothing_else_opens(headers: list[tuple[bytes, bytes]]) -> None:
    """Neither a part of a key, nor another scheme, nor no key at all."""
    assert not Keys(["new", "old"]).admit(headers)


def test_a_key_beyond_ascii_opens() -> None:
    """Keys are compared as bytes of UTF-8."""
    assert Keys(["ключ"]).admit([(b"x-api-key", "ключ".encode())])


def test_a_service_without_keys_is_open_and_says_so() -> None:
    """It is false, so that a caller can tell."""
    assert not Keys([])
    assert Keys([]).admit([])
    assert Keys(["one"])


def test_a_key_is_not_kept_as_it_is() -> None:
    """Only digests stay in memory, so that a dump of the object shows no key."""
    assert "s3cret" not in repr(vars(Keys(["s3cret"])))
