from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.rtsp.answers import Answer, AnswerParser, BadAnswerError

OK = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: ANNOUNCE, RECORD\r\n\r\n"
REFUSED = b"RTSP/1.0 401 Unauthorized\r\nwww-authenticate: Digest a\r\nWWW-Authenticate:Basic b \r\nbroken\r\n\r\n"
WITH_BODY = b"RTSP/1.0 200\r\nContent-Length: 20\r\n\r\nRTSP/1.0 500 Not us\r\n"
PACKET = b"$\x01\x00\x08RTSP/1.0"


def test_status_and_headers() -> None:
    (answer,) = AnswerParser().feed(REFUSED)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == ("Digest a", "Basic b")
    assert answer.header("www-authenticate") == "Digest a"
    assert answer.header("session") == ""


@given(
    pieces=st.lists(st.sampled_from([OK, REFUSED, WITH_BODY, PACKET, b"\r\n", b"$\x00\x00\x00"]), max_size=12),
    sizes=st.lists(st.integers(1, 50), min_size=1),
)
def test_however_the_bytes_are_split(pieces: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(pieces)
    expected = [status for piece in pieces if (status := {OK: 200, REFUSED: 401, WITH_BODY: 200}.get(piece))]
    parser, answers, start, turn = AnswerParser(), list[Answer](), 0, 0
    while start < len(stream):
        end = start + sizes[turn % len(sizes)]
        answers += parser.feed(stream[start:end])
        start, turn = end, turn + 1
    assert [answer.status for answer in answers] == expected


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no RTSP answer"),
        (b"\x16\x03\x01", "no RTSP answer"),
        (b"OPTIONS rtsp://box RTSP/1.0\r\n\r\n", "no RTSP answer"),
        (b"RTSP/1.0 yes\r\n\r\n", "without a status"),
        (b"RTSP/1.0 200 OK\r\nX: " + b"a" * 9000, "more than 8192 bytes of headers"),
        (b"RTSP/1.0 200 OK\r\nContent-Length: 65537\r\n\r\n", "a body of more than 65536 bytes"),
        (b"RTSP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n", "of no known length"),
    ],
)
def test_what_is_no_answer(data: bytes, said: str) -> None:
    with pytest.raises(BadAnswerError, match=said):
        AnswerParser().feed(data)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([OK, b"RTSP/1.0 2", b"$"]), max_size=30))
def test_nothing_else_is_raised_and_little_is_held(pieces: list[bytes]) -> None:
    parser = AnswerParser()
    try:
        for piece in pieces:
            parser.feed(piece)
    except BadAnswerError:
        return
    assert len(parser._buffer) <= 8192
