"""What a simulated camera's pictures suffer before they are sent: other sizes, overwritten bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from streamproc.simulate.condition import Condition
from streamproc.simulate.faults import FaultKind
from streamproc.sinks.live_encoder import LiveEncoder, default_bitrate_kbps, open_encoder
from streamproc.sources.nal import NalCodec, annex_b, kind_of
from streamproc.sources.unit_decoder import UnitDecoder
from streamproc.types import AccessUnit

__all__ = ["Tampering", "overwritten"]

_CORRUPT_SHARE = 0.25
_OVERWRITTEN_SHARE = 0.02


class Tampering:
    """Passes a camera's pictures on, as its condition is. Used on its player's thread.

    Args:
        condition: which faults the camera has.
        random: decides what is left to chance.
        publish: takes the pictures.
    """

    def __init__(self, condition: Condition, random: Random, publish: Callable[[AccessUnit], None]) -> None:
        self._condition = condition
        self._random = random
        self._publish = publish
        self._shrinking: _Shrinking | None = None

    def take(self, unit: AccessUnit) -> None:
        """The camera's next picture. Sizes change at keyframes: until one comes there is nothing to pass on."""
        small = self._condition.has(FaultKind.RESIZE)
        if small != (self._shrinking is not None):
            if not unit.keyframe:
                return
            self._shrinking = _Shrinking(unit.codec) if small else None
        for passed_on in [unit] if self._shrinking is None else self._shrinking.units(unit):
            corrupt = self._condition.has(FaultKind.CORRUPT) and self._random.random() < _CORRUPT_SHARE
            self._publish(overwritten(passed_on, self._random) if corrupt else passed_on)


class _Shrinking:
    """Coded pictures in, the same of half the size out, as H.264."""

    def __init__(self, codec: NalCodec) -> None:
        self._decoder = UnitDecoder(codec)
        self._encoder: LiveEncoder | None = None

    def units(self, unit: AccessUnit) -> list[AccessUnit]:
        found: list[AccessUnit] = []
        for bgr, pts_s, captured_utc_ns in self._decoder.half_size(unit):
            size = bgr.shape[1], bgr.shape[0]
            if self._encoder is None or self._encoder.size != size:
                self._encoder = open_encoder(size, bitrate_kbps=default_bitrate_kbps(size), fps=None)
            found += self._encoder.encode(bgr, pts_s=pts_s, captured_utc_ns=captured_utc_ns)
        return found


def overwritten(unit: AccessUnit, random: Random) -> AccessUnit:
    """The unit with a fiftieth of the bytes of its coded slices replaced by others, at random; the rest is sound.

    No replacement is 0 to 3: three zeros and such a byte would be another NAL unit (ITU-T H.264, 7.4.1).
    """
    parts = [b"\x00"]
    for nal in annex_b(unit.data):
        kind, header_bytes = kind_of(unit.codec, nal), 1 if unit.codec == "h264" else 2
        coded = bytearray(nal)
        if (1 <= kind <= 5 if unit.codec == "h264" else kind < 32) and len(nal) > header_bytes:
            for _ in range(1 + round(len(nal) * _OVERWRITTEN_SHARE)):
                coded[random.randrange(header_bytes, len(nal))] = random.randrange(4, 256)
        parts += (b"\x00\x00\x01", bytes(coded))
    return replace(unit, data=b"".join(parts))
