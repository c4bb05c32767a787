"""RTSP 1.0 answers (RFC 2326 section 7) as bytes: a parser that takes them as they come. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Answer", "AnswerParser", "BadAnswerError"]

_MOST_HEAD_BYTES = 8192
_MOST_BODY_BYTES = 65_536
_VERSION = b"RTSP/"
_STATUS_LINE = re.compile(r"RTSP/\d\.\d ([1-5]\d\d)(?: .*)?")
_HEADER = re.compile(r"([^\s:]+)[ \t]*:[ \t]*(.*)")


class BadAnswerError(Exception):
    """Bytes that are no RTSP answer; says what they are, without quoting them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status and headers of an answer; header names are in lower case, each with all its values."""

    status: int
    headers: Mapping[str, tuple[str, ...]]

    def header(self, name: str) -> str:
        """The first value of a header; empty where there is none."""
        return self.headers.get(name, ("",))[0]


class AnswerParser:
    """Cuts a byte stream into answers, however it is split. Holds at most the head of one.

    What else a server sends to a client that publishes, bodies and interleaved packets (its RTCP), is thrown away.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._unwanted = 0

    def feed(self, data: bytes | bytearray) -> list[Answer]:
        """Take received bytes; the answers that they complete.

        Raises:
            BadAnswerError: they are no answers. Where the next one would begin is unknown: none can follow.
        """
        buffer, answers = self._buffer, []
        buffer += data
        while self._skip() and buffer:
            if buffer[0] == ord("$"):  # RFC 2326 section 10.12
                if len(buffer) < 4:
                    break
                self._unwanted = 4 + int.from_bytes(buffer[2:4], "big")
            elif buffer[0] in b"\r\n":
                self._unwanted = 1
            else:
                end = self._end_of_head()
                if end is None:
                    break
                answer, body_bytes = _parse(bytes(buffer[:end]))
                self._unwanted = end + 4 + body_bytes
                answers.append(answer)
        return answers

    def _skip(self) -> bool:
        """Throw away what is not wanted, as far as it has come; whether all of it has."""
        count = min(self._unwanted, len(self._buffer))
        del self._buffer[:count]
        self._unwanted -= count
        return self._unwanted == 0

    def _end_of_head(self) -> int | None:
        if not self._buffer.startswith(_VERSION[: len(self._buffer)]):
            raise BadAnswerError("something that is no RTSP answer")
        end = self._buffer.find(b"\r\n\r\n", 0, _MOST_HEAD_BYTES)
        if end < 0 and len(self._buffer) >= _MOST_HEAD_BYTES:
            raise BadAnswerError(f"an answer with more than {_MOST_HEAD_BYTES} bytes of headers")
        return end if end >= 0 else None


def _parse(head: bytes) -> tuple[Answer, int]:
    """An answer, and the length of its body."""
    start, *lines = head.decode("utf-8", "replace").split("\r\n")
    status = _STATUS_LINE.fullmatch(start)
    if status is None:
        raise BadAnswerError("an answer without a status")
    headers: dict[str, tuple[str, ...]] = {}
    for line in lines:
        if match := _HEADER.fullmatch(line):
            name = match[1].lower()
            headers[name] = (*headers.get(name, ()), match[2].strip())
    answer = Answer(status=int(status[1]), headers=headers)
    length = answer.header("content-length") or "0"
    if not re.fullmatch("[0-9]{1,9}", length) or int(length) > _MOST_BODY_BYTES:
        raise BadAnswerError(f"an answer with a body of more than {_MOST_BODY_BYTES} bytes, or of no known length")
    return answer, int(length)
