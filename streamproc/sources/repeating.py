"""Video files made of a video file's packets: one that goes on for longer, and short ones to play before it."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from streamproc.errors import SourceError
from streamproc.sources.faults import file_error

__all__ = ["cut_openings", "repeat_file"]

_FALLBACK_RATE = 25


def repeat_file(camera: str, path: Path, into: Path, at_least_s: float) -> Path:
    """The file itself where it is long enough; or else a Matroska file with its video repeated, which is written.

    Nothing is coded anew: it must begin with a keyframe, as files do.

    Raises:
        SourceError: it cannot be read, or its codec not be written; the message names ``camera``.
    """
    try:
        with av.open(f"file:{path}") as given:
            if given.duration is not None and given.duration / av.time_base >= at_least_s:
                return path
            source = given.streams.video[0]
            with av.open(str(into), "w", format="matroska") as written:
                target = written.add_stream_from_template(source)
                length = at_least_s / float(source.time_base or 1)
                offset = 0
                while offset < length:
                    offset += _append(path, written, target, offset)
    except (av.FFmpegError, ValueError, IndexError) as exc:
        into.unlink(missing_ok=True)
        if isinstance(exc, av.FFmpegError):
            raise file_error(camera, path, exc) from exc
        raise SourceError(f"camera {camera}: {path} cannot be repeated: {exc}.", reason="codec") from exc
    return into


def cut_openings(camera: str, path: Path, folder: Path, parts: int) -> tuple[Path, ...]:
    """Files with the first 1, 2, ... of ``parts`` equal parts of a file's first group of pictures: whatever plays one
    of them before the file has its keyframes at other times.

    None where the file is one group, a group is too short, or pictures depend on later ones, which are cut off.

    Raises:
        SourceError: it cannot be read, or its codec not be written; the message names ``camera``.
    """
    try:
        with av.open(f"file:{path}") as given:
            source = given.streams.video[0]
            group = 0
            for packet in given.demux(source):
                if group and packet.is_keyframe:
                    break
                group += 1
                if packet.pts != packet.dts or not packet.size:
                    return ()
            else:
                return ()
        if group < parts:
            return ()
        return tuple(_cut(path, folder / f"{part}.mkv", round(group * part / parts)) for part in range(1, parts))
    except av.FFmpegError as exc:
        raise file_error(camera, path, exc) from exc


def _cut(path: Path, into: Path, packets: int) -> Path:
    """Write a file's first packets."""
    with av.open(f"file:{path}") as given, av.open(str(into), "w", format="matroska") as written:
        source = given.streams.video[0]
        target = written.add_stream_from_template(source)
        for packet in itertools.islice(given.demux(source), packets):
            packet.stream = target
            written.mux(packet)
    return into


def _append(path: Path, written: OutputContainer, target: VideoStream, offset: int) -> int:
    """Write all packets with times from ``offset`` on; how long they last, in ticks of the source."""
    with av.open(f"file:{path}") as given:
        source = given.streams.video[0]
        packets = [packet for packet in given.demux(source) if packet.size]
        rate = source.guessed_rate or source.average_rate or _FALLBACK_RATE
        if not packets or source.time_base is None:
            raise ValueError("it holds no video packets")
        period = max(1, round(1 / (rate * source.time_base)))
        times = _decoding_times([packet.dts for packet in packets], period)
        for packet, dts in zip(packets, times, strict=True):
            packet.pts = None if packet.pts is None else packet.pts + offset - times[0]
            packet.dts = dts + offset - times[0]
            packet.stream = target
            written.mux(packet)
        return times[-1] - times[0] + period


def _decoding_times(given: list[int | None], period: int) -> list[int]:
    """Those that are missing filled in, as of the first packets in Matroska files with B-frames.

    >>> _decoding_times([None, None, 0, 40, None, 120], 40)
    [-80, -40, 0, 40, 80, 120]
    """
    known = next((index for index, dts in enumerate(given) if dts is not None), 0)
    times = [(given[known] or 0) + (index - known) * period for index in range(known)]
    for dts in given[known:]:
        times.append(dts if dts is not None else times[-1] + period if times else 0)
    return times
