"""Who may watch: Basic and Digest authentication (RFC 7617, RFC 2617) with one user name and password."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Credentials", "Gatekeeper", "Verdict"]

_REALM = "streamproc"
_NONCE_LIFETIME_S = 60.0
_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Verdict(Enum):
    """What an Authorization header is worth; ``ABSENT`` and ``STALE`` are no sign of a wrong password."""

    RIGHT = "right"
    WRONG = "wrong"
    STALE = "stale"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user name and password; neither is ever shown."""

    username: str = field(repr=False)
    password: str = field(repr=False)


class Gatekeeper:
    """Judges the Authorization headers of one connection.

    The nonce belongs to the connection, so that an answer overheard on one is worth nothing on another, and lives for
    a minute. Digest is offered as MD5 without ``qop``, the one form that every RTSP client knows; Basic for the rest.
    """

    def __init__(self, credentials: Credentials, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._credentials = credentials
        self._clock = clock
        self._nonce = ""
        self._made_s = 0.0

    def challenge(self, verdict: Verdict) -> str:
        """Values of the WWW-Authenticate headers, a line each, with a fresh nonce."""
        self._nonce, self._made_s = secrets.token_hex(16), self._clock()
        stale = ", stale=true" if verdict is Verdict.STALE else ""
        return f'Digest realm="{_REALM}", nonce="{self._nonce}"{stale}\nBasic realm="{_REALM}"'

    def judge(self, method: str, header: str | None) -> Verdict:
        """Compare an Authorization header with what is expected, in a time that does not depend on how wrong it is."""
        if header is None:
            return Verdict.ABSENT
        scheme, _, rest = header.partition(" ")
        match scheme.lower():
            case "basic":
                return self._basic(rest)
            case "digest":
                return self._digest(method, rest)
        return Verdict.WRONG

    def _basic(self, token: str) -> Verdict:
        expected = f"{self._credentials.username}:{self._credentials.password}".encode()
        try:
            given = base64.b64decode(token.strip(), validate=True)
        except (binascii.Error, ValueError):
            return Verdict.WRONG
        return Verdict.RIGHT if hmac.compare_digest(given, expected) else Verdict.WRONG

    def _digest(self, method: str, text: str) -> Verdict:
        given = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(text)}
        user, password = self._credentials.username, self._credentials.password
        secret = _md5(f"{user}:{_REALM}:{password}")
        request = _md5(f"{method}:{given.get('uri', '')}")
        nonce = given.get("nonce", "")
        expected = _md5(f"{secret}:{nonce}:{request}")
        same_user = hmac.compare_digest(given.get("username", "").encode(), user.encode())
        same_answer = hmac.compare_digest(given.get("response", "").encode(), expected.encode())
        if not (same_user and same_answer):
            return Verdict.WRONG
        if not hmac.compare_digest(nonce.encode(), self._nonce.encode()):
            return Verdict.STALE
        return Verdict.RIGHT if self._clock() - self._made_s < _NONCE_LIFETIME_S else Verdict.STALE


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
