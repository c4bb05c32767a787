"""Basic and Digest authentication (RFC 7617, RFC 2617, RFC 7616) with one user name and password, from both sides."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Credentials", "Gatekeeper", "Login", "Verdict"]

_REALM = "streamproc"
_NONCE_LIFETIME_S = 60.0
_HASHES = {"SHA-256": "sha256", "MD5": "md5"}
"""Of Digest, by the names of RFC 7616 section 3.3, the better one first."""

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
        given = _parameters(text)
        user, password = self._credentials.username, self._credentials.password
        secret = _hashed("MD5", f"{user}:{_REALM}:{password}")
        request = _hashed("MD5", f"{method}:{given.get('uri', '')}")
        nonce = given.get("nonce", "")
        expected = _hashed("MD5", f"{secret}:{nonce}:{request}")
        same_user = hmac.compare_digest(given.get("username", "").encode(), user.encode())
        same_answer = hmac.compare_digest(given.get("response", "").encode(), expected.encode())
        if not (same_user and same_answer):
            return Verdict.WRONG
        if not hmac.compare_digest(nonce.encode(), self._nonce.encode()):
            return Verdict.STALE
        return Verdict.RIGHT if self._clock() - self._made_s < _NONCE_LIFETIME_S else Verdict.STALE


class Login:
    """The client's side: Authorization headers for the requests of one connection, as the server asks for them.

    The best that it offers is taken: Digest with SHA-256, Digest with MD5, or Basic.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._challenge: Mapping[str, str] | None = None
        self._count = 0

    def challenged(self, challenges: Iterable[str]) -> bool:
        """Take a server's WWW-Authenticate headers; False where none of them can be answered."""
        offers = [offer for offer in map(_offer, challenges) if offer is not None]
        order = [*_HASHES, "basic"]
        self._challenge = min(offers, key=lambda offer: order.index(offer["algorithm"]), default=None)
        self._count = 0
        return self._challenge is not None

    def header(self, method: str, uri: str) -> str | None:
        """The header's value for a request; None before the first challenge."""
        user, password = self._credentials.username, self._credentials.password
        challenge = self._challenge
        if challenge is None:
            return None
        if challenge["algorithm"] == "basic":
            return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        algorithm, realm, nonce = challenge["algorithm"], challenge.get("realm", ""), challenge.get("nonce", "")
        secret = _hashed(algorithm, f"{user}:{realm}:{password}")
        request = _hashed(algorithm, f"{method}:{uri}")
        # What comes from the server goes back as it came; the name is ours to quote (RFC 7230 section 3.2.6).
        given = {"username": re.sub(r'(["\\])', r"\\\1", user), "realm": realm, "nonce": nonce, "uri": uri}
        bare = {}
        between = ""
        if "qop" in challenge:
            self._count += 1
            given["cnonce"] = secrets.token_hex(8)
            bare = {"qop": "auth", "nc": f"{self._count:08x}"}
            between = f"{bare['nc']}:{given['cnonce']}:auth:"
        given["response"] = _hashed(algorithm, f"{secret}:{nonce}:{between}{request}")
        given |= {name: challenge[name] for name in ("opaque",) if name in challenge}
        bare |= {"algorithm": algorithm} if algorithm != "MD5" else {}  # which some servers only know unnamed
        quoted = [f'{name}="{value}"' for name, value in given.items()]
        return "Digest " + ", ".join([*quoted, *(f"{name}={value}" for name, value in bare.items())])


def _offer(challenge: str) -> dict[str, str] | None:
    """A WWW-Authenticate header's parameters, with an ``algorithm`` that is known, or ``basic``; or None."""
    scheme, _, rest = challenge.strip().partition(" ")
    match scheme.lower():
        case "basic":
            return {"algorithm": "basic"}
        case "digest":
            offer = _parameters(rest)
            offer["algorithm"] = offer.get("algorithm", "MD5").upper()
            qualities = {quality.strip() for quality in offer.get("qop", "auth").split(",")}
            return offer if offer["algorithm"] in _HASHES and "auth" in qualities else None
    return None


def _parameters(text: str) -> dict[str, str]:
    return {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(text)}


def _hashed(algorithm: str, text: str) -> str:
    return hashlib.new(_HASHES[algorithm], text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
