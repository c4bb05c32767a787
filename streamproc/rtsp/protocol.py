"""RTSP 1.0 messages (RFC 2326) as bytes: a parser that takes them as they come, and replies. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

__all__ = ["TRACK", "BadMessage", "Interleaved", "Message", "Parser", "Request", "Target", "reply"]

MAX_HEAD_BYTES = 8192
MAX_BODY_BYTES = 65_536
TRACK = "trackID=0"
"""The control attribute of a feed's only stream."""

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(r"([A-Z_]{1,32}) (\S+) RTSP/(\d)\.(\d)")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    413: "Request Entity Too Large",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "RTSP Version Not Supported",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. Header names are in lower case; of a repeated header the last counts."""

    method: str
    uri: str
    headers: Mapping[str, str]
    cseq: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Interleaved:
    """A binary packet between two messages (RFC 2326 section 10.12)."""

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BadMessage:
    """Something that is no request. ``fatal``: where the next message begins is unknown, so none can follow."""

    status: int
    cseq: str | None
    fatal: bool


Message: TypeAlias = Request | Interleaved | BadMessage


class Parser:
    """Cuts a byte stream into messages, however it is split. Holds at most one message's bytes.

    After a fatal :class:`BadMessage` everything that follows is ignored.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._lost = False

    def feed(self, data: bytes | bytearray) -> None:
        """Add received bytes; :meth:`messages` gives what they complete."""
        if not self._lost:
            self._buffer += data

    def messages(self) -> Iterator[Message]:
        """Every complete message so far, once. May be left and called again at any point."""
        while not self._lost and (message := self._next()) is not None:
            if isinstance(message, BadMessage) and message.fatal:
                self._lost = True
                self._buffer.clear()
            yield message

    def _next(self) -> Message | None:
        buffer = self._buffer
        while buffer.startswith((b"\r", b"\n")):  # some clients end a body with an empty line that it does not count
            del buffer[:1]
            self._scanned = 0
        if not buffer:
            return None
        if buffer[0] == ord("$"):
            return self._interleaved()
        # The end of a head may have come in pieces: look three bytes back.
        end = _END_OF_HEAD.search(buffer, max(0, self._scanned - 3), MAX_HEAD_BYTES)
        if end is None:
            self._scanned = len(buffer)
            return BadMessage(status=413, cseq=None, fatal=True) if len(buffer) >= MAX_HEAD_BYTES else None
        head = bytes(buffer[: end.start()])
        message, body_bytes = _parse_head(head)
        if isinstance(message, Request):
            if len(buffer) < end.end() + body_bytes:
                return None
            if body_bytes:
                body = bytes(buffer[end.end() : end.end() + body_bytes])
                message = Request(
                    method=message.method, uri=message.uri, headers=message.headers, cseq=message.cseq, body=body
                )
        self._drop(end.end() + body_bytes)
        return message

    def _interleaved(self) -> Interleaved | None:
        length = 4 + int.from_bytes(self._buffer[2:4], "big")
        if len(self._buffer) < max(4, length):
            return None
        packet = Interleaved(channel=self._buffer[1], data=bytes(self._buffer[4:length]))
        self._drop(length)
        return packet

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._scanned = 0


def _parse_head(head: bytes) -> tuple[Request | BadMessage, int]:
    """A request without its body, and the body's length; bytes that cannot be skipped with it make it fatal."""
    lines = re.split("\r?\n", head.decode("utf-8", "replace"))
    headers: dict[str, str] = {}
    well_formed = True
    for line in lines[1:]:
        if match := _HEADER.fullmatch(line):
            headers[match[1].lower()] = match[2].rstrip()
        else:
            well_formed = False
    cseq = headers.get("cseq", "")
    known = cseq if re.fullmatch("[0-9]{1,10}", cseq) else None
    length = headers.get("content-length", "0")
    if not re.fullmatch("[0-9]{1,9}", length):
        return BadMessage(status=400, cseq=known, fatal=True), 0
    if int(length) > MAX_BODY_BYTES:
        return BadMessage(status=413, cseq=known, fatal=True), 0
    start = _REQUEST_LINE.fullmatch(lines[0])
    if start is not None and (start[3], start[4]) != ("1", "0"):
        return BadMessage(status=505, cseq=known, fatal=length != "0"), 0
    if start is None or known is None or not well_formed:
        return BadMessage(status=400, cseq=known, fatal=length != "0"), 0
    return Request(method=start[1], uri=start[2], headers=headers, cseq=known, body=b""), int(length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a request's address names: ``base`` is the address itself without credentials, query and track."""

    base: str
    path: str

    @classmethod
    def of(cls, uri: str) -> Target:
        """Raises ValueError: it is no RTSP address.

        >>> Target.of("rtsp://me:secret@box:8554/gate/raw/trackID=0?x=1")
        Target(base='rtsp://box:8554/gate/raw', path='gate/raw')
        """
        parts = urlsplit(uri)
        if parts.scheme.lower() not in ("rtsp", "rtsps", "rtspu") or not parts.netloc:
            raise ValueError(f"not an RTSP address: {parts.scheme}")
        path = parts.path.rstrip("/").removesuffix(f"/{TRACK}").strip("/")
        return cls(base=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{path}", path=unquote(path))


def reply(status: int, cseq: str | None, headers: Mapping[str, str] | None = None, body: str = "") -> bytes:
    """A response; a header's value with several lines becomes several headers of that name."""
    lines = [f"RTSP/1.0 {status} {_REASONS[status]}", "Server: streamproc"]
    if cseq is not None:
        lines.insert(1, f"CSeq: {cseq}")
    for name, values in (headers or {}).items():
        lines += [f"{name}: {value}" for value in values.split("\n")]
    content = body.encode()
    if content:
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content
