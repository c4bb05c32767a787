from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.rtsp.protocol import BadMessage, Interleaved, Message, Parser, Request, Target, reply

DESCRIBE = b"DESCRIBE rtsp://box/gate RTSP/1.0\r\nCSeq: 2\r\nAccept: application/sdp\r\n\r\n"
POST = b"SET_PARAMETER rtsp://box/gate RTSP/1.0\r\nCSeq: 3\r\nContent-Length: 5\r\n\r\nhello"
PACKET = b"$\x01\x00\x04\x81\xc9\x00\x01"


def parse(*pieces: bytes) -> list[Message]:
    parser = Parser()
    found: list[Message] = []
    for piece in pieces:
        parser.feed(piece)
        found += parser.messages()
    return found


def test_messages_and_packets_in_a_row() -> None:
    describe, packet, post, option = parse(DESCRIBE + PACKET + POST + b"\r\nOPTIONS * RTSP/1.0\nCSeq:4\n\n")
    assert isinstance(describe, Request)
    assert (describe.method, describe.uri, describe.cseq) == ("DESCRIBE", "rtsp://box/gate", "2")
    assert describe.headers["accept"] == "application/sdp"
    assert packet == Interleaved(channel=1, data=b"\x81\xc9\x00\x01")
    assert isinstance(post, Request)
    assert post.body == b"hello"
    assert isinstance(option, Request)
    assert (option.method, option.cseq) == ("OPTIONS", "4")


def test_the_same_however_it_is_split() -> None:
    stream = DESCRIBE + PACKET + b"nonsense\r\n\r\n" + POST
    whole = parse(stream)
    assert len(whole) == 4
    assert parse(*(bytes([byte]) for byte in stream)) == whole
    for cut in range(len(stream)):
        assert parse(stream[:cut], stream[cut:]) == whole


@pytest.mark.parametrize(
    ("message", "status", "cseq", "fatal"),
    [
        (b"hello\r\n\r\n", 400, None, False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, None, False),
        (b"OPTIONS * RTSP/1.0\r\n\r\n", 400, None, False),
        (b"OPTIONS * RTSP/1.0\r\nCSeq: x\r\n\r\n", 400, None, False),
        (b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nno colon\r\n\r\n", 400, "1", False),
        (b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nX: a\rb\r\n\r\n", 400, "1", False),
        (b"OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\n", 505, "1", False),
        (b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: -1\r\n\r\n", 400, "1", True),
        (b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 65537\r\n\r\n", 413, "1", True),
        (b"OPTIONS * RTSP/1.0\r\nX: " + b"a" * 9000, 413, None, True),
    ],
)
def test_what_is_no_request(message: bytes, status: int, cseq: str | None, fatal: bool) -> None:
    first, *others = parse(message + DESCRIBE)
    assert first == BadMessage(status=status, cseq=cseq, fatal=fatal)
    assert [type(other) for other in others] == ([] if fatal else [Request])


def test_nothing_is_kept_after_a_fatal_message() -> None:
    parser = Parser()
    parser.feed(b"x" * 8192)
    assert len(list(parser.messages())) == 1
    for _ in range(100):
        parser.feed(b"y" * 65_536)
        assert list(parser.messages()) == []
    assert not parser._buffer


TOKENS = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"$",
        b":",
        b" ",
        b"CSeq: 1",
        b"Content-Length: ",
        b"5",
        b"RTSP/1.0",
        b"OPTIONS *",
        b"\0\xff",
        DESCRIBE,
        POST,
        PACKET,
        b"a" * 300,
    ]
)
STREAMS = st.lists(TOKENS | st.binary(max_size=20), max_size=60).map(b"".join)


CUTS = st.lists(st.integers(0, 2000), max_size=5)


@settings(max_examples=3000, deadline=None)
@given(STREAMS, CUTS)
def test_any_bytes_give_the_same_messages_however_split(stream: bytes, cuts: list[int]) -> None:
    check_stream(stream, cuts)


@pytest.mark.drill
@settings(max_examples=100_000, deadline=None)
@given(STREAMS, CUTS)
def test_many_bytes_give_the_same_messages_however_split(stream: bytes, cuts: list[int]) -> None:
    check_stream(stream, cuts)


def check_stream(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    found = parse(*pieces)
    assert found == parse(stream)
    assert sum(isinstance(message, BadMessage) and message.fatal for message in found) <= 1
    for message in found:
        if isinstance(message, Request):
            assert message.cseq.isdigit()
            assert b"\r" not in message.uri.encode()
            assert len(message.body) <= 65_536


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=60).map(lambda text: "rtsp://box/" + text) | st.text(max_size=60))
def test_any_address_is_a_target_or_a_value_error(uri: str) -> None:
    try:
        target = Target.of(uri)
    except ValueError:
        return
    assert "@" not in target.base.partition("://")[2].partition("/")[0]


@pytest.mark.parametrize("uri", ["*", "/gate", "http://box/gate", "rtsp://[::1/gate", "rtsp:///gate"])
def test_what_is_no_address(uri: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Target.of(uri)


def test_targets_with_track_query_and_escapes() -> None:
    assert Target.of("rtsp://box:8554/gate/trackID=0").path == "gate"
    assert Target.of("rtsp://box:8554/north%20gate/raw/?x=1").path == "north gate/raw"


def test_a_reply() -> None:
    assert reply(200, "7", {"WWW-Authenticate": "A\nB"}, "é") == (
        b"RTSP/1.0 200 OK\r\nCSeq: 7\r\nServer: streamproc\r\nWWW-Authenticate: A\r\nWWW-Authenticate: B\r\n"
        b"Content-Length: 2\r\n\r\n\xc3\xa9"
    )
