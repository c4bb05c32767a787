from __future__ import annotations

import base64
import hashlib
import re
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.rtsp.auth import Credentials, Gatekeeper, Login, Verdict

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


@given(user=st.text("abc:@ö", min_size=1).filter(lambda text: ":" not in text), password=st.text('abc:@/ö\\"'))
def test_both_sides_agree(user: str, password: str) -> None:
    credentials = Credentials(username=user, password=password)
    gatekeeper, login = Gatekeeper(credentials), Login(credentials)
    assert login.header("ANNOUNCE", "rtsp://box/gate") is None
    challenges = gatekeeper.challenge(Verdict.ABSENT).split("\n")
    for offers in (challenges, challenges[1:]):
        assert login.challenged(offers)
        for method in ("ANNOUNCE", "SETUP"):
            assert gatekeeper.judge(method, login.header(method, "rtsp://box/gate")) is Verdict.RIGHT


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_example_of_rfc_7616_section_3_9_1(algorithm: str, response: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    login = Login(Credentials(username="Mufasa", password="Circle of Life"))
    assert login.challenged(
        [
            f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, '
            'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
            'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
        ]
    )
    header = login.header("GET", "/dir/index.html")
    assert header is not None
    for part in (f'response="{response}"', "nc=00000001", "qop=auth", 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCU'):
        assert part in header


def test_the_best_that_can_be_answered_is_taken() -> None:
    login = Login(LOGIN)
    assert login.challenged(['Basic realm="a"', 'Digest realm="b", nonce="1"', 'Digest nonce="2", algorithm=SHA-256'])
    assert "algorithm=SHA-256" in (login.header("ANNOUNCE", "x") or "")
    assert login.challenged(['Digest realm="b", nonce="1", algorithm=SHA-512-256', 'basic realm="a"'])
    assert (login.header("ANNOUNCE", "x") or "").startswith("Basic ")
    assert not login.challenged(["Bearer", 'Digest realm="a", nonce="1", qop="auth-int"', ""])
    assert login.header("ANNOUNCE", "x") is None


def test_a_name_with_quotes_cannot_break_out_of_them() -> None:
    login = Login(Credentials(username='a"b\\', password=""))
    assert login.challenged(['Digest realm="r", nonce="n"'])
    assert r'username="a\"b\\", realm="r"' in (login.header("ANNOUNCE", "x") or "")
