"""One video stream's decoder: sound pictures out, everything else counted."""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from typing import Final, Literal

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streamproc.ledger import CameraLedger, DropReason
from streamproc.sources.h264 import LostReferenceDetector
from streamproc.sources.nal import HEAD_BYTES, codec_of, is_disposable, length_bytes

__all__ = ["DecodeMode", "Decoder"]

DecodeMode = Literal["all", "nonref", "keyframes"]

_TURNS: Final = threading.BoundedSemaphore(len(os.sched_getaffinity(0)) + 1)
"""Decoders that may work at a time in this process. More than there are cores would finish later, all of them, and
would leave the event loop one of many that want the processor; one more makes up for who waits for the interpreter."""


class Decoder:
    """Decodes one stream on its reader's thread and keeps the decode stage's books.

    After any damage (a packet or picture marked corrupt, a decoding error, a lost reference picture) the decoder is
    emptied and nothing comes out before the next keyframe. Every packet is booked exactly once: as the picture it
    became (by whoever takes the picture), or as dropped. What is inside when the reader is told to stop stays for
    ``CameraLedger.close``.

    Args:
        strict: take every violation for damage. Without it less is noticed (B-pictures that depend on a damaged one,
            lost references of H.265), but cameras whose every packet violates the standard (a truncated SEI is a
            common one) can be watched.
        mode: which packets are worth decoding: ``all``; ``nonref`` leaves out those that no other picture is predicted
            from (half of them or more, where a camera sends such), ``keyframes`` everything but keyframes.
    """

    MAX_HELD = 32
    """More packets than this are in no decoder: 16 reordered pictures of two fields each (H.264, A.3.1)."""

    def __init__(self, stream: VideoStream, ledger: CameraLedger, *, strict: bool, mode: DecodeMode = "all") -> None:
        context = stream.codec_context
        # One thread: as many cameras as there are already fill the cores, and frame threading delays every picture.
        context.thread_count = 1
        if strict:
            context.options = {"err_detect": "explode"}
        self._context = context
        self._turns = nullcontext() if context.is_hwaccel else _TURNS
        self._ledger = ledger
        self._mode = mode
        self._codec = codec_of(context.name)
        self._lengths = length_bytes(self._codec, context.extradata) if self._codec else 0
        self._held = 0
        self._failed_keyframes = 0
        self._skipping: DropReason | None = DropReason.NO_PICTURE
        self._left_out = 0
        self._tainted = False
        # Keyframes have no references that could be lost.
        watchful = self._codec == "h264" and mode != "keyframes"
        self._lost = LostReferenceDetector(context.extradata) if watchful else None

    @property
    def failed_keyframes(self) -> int:
        """Keyframes that arrived whole, as far as the container can tell, and did not decode."""
        return self._failed_keyframes

    def feed(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        """The sound pictures that come out when this packet goes in; it must not be empty."""
        self._ledger.received()
        # The parser hands a picture out when it sees the start of the next, with the next one's mark.
        tainted, self._tainted = self._tainted or packet.is_corrupt, packet.is_corrupt
        if self._mode == "keyframes" and not packet.is_keyframe:
            self._ledger.dropped(DropReason.SKIPPED)
            return []
        if tainted:
            self._held += 1
            self._discard()
            return []
        if self._skipping is not None:
            if self._left_out or not packet.is_keyframe:
                self._left_out = max(0, self._left_out - 1)
                self._ledger.dropped(self._skipping)
                return []
            self._skipping = None
        if self._mode == "nonref" and self._is_disposable(packet):
            self._ledger.dropped(DropReason.SKIPPED)
            return []
        self._held += 1
        if self._lost is not None and self._lost.lost_before(memoryview(packet)):
            self._discard()
            return []
        return self._decode(packet)

    def leave_out(self, packets: int) -> None:
        """Decode none of the next ``packets``, nor what comes before the keyframe after them."""
        self._left_out = packets
        self._discard(DropReason.BEHIND)

    def drain(self) -> list[VideoFrame]:
        """The last pictures, at the end of the stream; the books of what went in are closed."""
        pictures = [] if self._skipping is not None else self._decode(None)
        self._settle(DropReason.NO_PICTURE, keep=0)
        return pictures

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            with self._turns:
                frames = self._context.decode(packet)
                if self._mode == "keyframes" and packet is not None:
                    # Nothing follows that would push the picture out before the next keyframe.
                    frames += self._context.decode(None)
                    self._context.flush_buffers()
        except av.FFmpegError:
            self._failed_keyframes += packet is not None and packet.is_keyframe
            self._discard()
            return []
        for index, frame in enumerate(frames):
            if frame.is_corrupt:
                self._held -= index
                self._discard()
                return frames[:index]
        self._held -= len(frames)
        # Second fields and hidden pictures (VP9) never come out; they must not look like a growing backlog.
        self._settle(DropReason.NO_PICTURE, keep=self.MAX_HELD)
        return frames

    def _is_disposable(self, packet: Packet[VideoStream]) -> bool:
        if self._codec is None:
            return packet.is_disposable
        return is_disposable(self._codec, bytes(memoryview(packet)[:HEAD_BYTES]), self._lengths)

    def _discard(self, reason: DropReason = DropReason.CORRUPT) -> None:
        """Throw away what is inside, and all that comes before the next keyframe."""
        self._settle(reason, keep=0)
        self._skipping = reason
        self._context.flush_buffers()
        if self._lost is not None:
            self._lost.resync()

    def _settle(self, reason: DropReason, *, keep: int) -> None:
        """Book packets beyond ``keep`` as dropped; where nothing is kept, pictures beyond packets as received too."""
        if self._held > keep:
            self._ledger.dropped(reason, self._held - keep)
            self._held = keep
        elif keep == 0 and self._held < 0:
            self._ledger.received(-self._held)
            self._held = 0
