"""Who may come in, and how much at a time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256


class Keys:
    """The API keys of a service; several during a rotation, none if it is open."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """True if the service is open or `headers` carry one of the keys: `Authorization: Bearer …` or `X-API-Key: …`.

        Takes the same time for every wrong key: digests of equal length are compared, and always with all keys.
        """
        if not self._digests:
            return True
        offered = sha256(_offered(headers)).digest()
        found = [hmac.compare_digest(offered, digest) for digest in self._digests]
        return True in found


def _offered(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
    return b""
