from __future__ import annotations

import base64
import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from streamproc.rtsp.auth import Credentials, Gatekeeper, Verdict

LOGIN = Credentials(username="me", password="pass:wörd@/")


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def digest(challenge: str, password: str, *, method: str = "DESCRIBE", user: str = "me") -> str:
    """A client's answer, by RFC 2617 section 3.2.2 without qop."""
    realm, nonce = (re.findall(rf'{name}="([^"]*)"', challenge)[0] for name in ("realm", "nonce"))
    response = md5(f"{md5(f'{user}:{realm}:{password}')}:{nonce}:{md5(f'{method}:rtsp://box/gate')}")
    return f'Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="rtsp://box/gate", response="{response}"'


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_digest() -> None:
    gatekeeper = Gatekeeper(LOGIN)
    challenge = gatekeeper.challenge(Verdict.ABSENT)
    assert gatekeeper.judge("DESCRIBE", digest(challenge, LOGIN.password)) is Verdict.RIGHT
    assert gatekeeper.judge("DESCRIBE", digest(challenge, "other")) is Verdict.WRONG
    assert gatekeeper.judge("DESCRIBE", digest(challenge, LOGIN.password, user="you")) is Verdict.WRONG
    assert gatekeeper.judge("SETUP", digest(challenge, LOGIN.password)) is Verdict.WRONG


def test_an_answer_is_worth_nothing_on_another_connection_or_later() -> None:
    now_s = 0.0
    gatekeeper, other = Gatekeeper(LOGIN, clock=lambda: now_s), Gatekeeper(LOGIN)
    other.challenge(Verdict.ABSENT)
    answer = digest(gatekeeper.challenge(Verdict.ABSENT), LOGIN.password)
    assert other.judge("DESCRIBE", answer) is Verdict.STALE
    assert gatekeeper.judge("DESCRIBE", answer) is Verdict.RIGHT
    now_s = 61.0
    assert gatekeeper.judge("DESCRIBE", answer) is Verdict.STALE
    assert "stale=true" in gatekeeper.challenge(Verdict.STALE)


def test_nothing_is_right_before_a_challenge() -> None:
    assert Gatekeeper(LOGIN).judge("DESCRIBE", digest('realm="streamproc" nonce=""', LOGIN.password)) is Verdict.STALE


def test_basic() -> None:
    gatekeeper = Gatekeeper(LOGIN)
    assert gatekeeper.judge("DESCRIBE", basic("me:pass:wörd@/")) is Verdict.RIGHT
    for wrong in ("me:pass", "me", "", "you:pass:wörd@/"):
        assert gatekeeper.judge("DESCRIBE", basic(wrong)) is Verdict.WRONG
    assert gatekeeper.judge("DESCRIBE", None) is Verdict.ABSENT
    assert gatekeeper.judge("DESCRIBE", "Bearer x") is Verdict.WRONG


@given(st.text() | st.text().map("Digest ".__add__) | st.text().map("Basic ".__add__))
def test_any_header_gets_a_verdict(header: str) -> None:
    assert Gatekeeper(LOGIN).judge("DESCRIBE", header) is Verdict.WRONG


def test_credentials_are_never_shown() -> None:
    assert repr(LOGIN) == "Credentials()"
