"""NAL units of H.264 and H.265 packets, in either packaging: what kind they are, and who needs them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

__all__ = ["HEAD_BYTES", "NalCodec", "annex_b", "codec_of", "is_disposable", "kind_of", "length_bytes", "nal_units"]

NalCodec = Literal["h264", "hevc"]

HEAD_BYTES = 4096
"""Parameter sets and SEI in front of the first slice fit into this; a slice beyond it is not looked at."""


def codec_of(name: str) -> NalCodec | None:
    """The codec that libav calls ``name``, if it is one of NAL units."""
    return "h264" if name == "h264" else "hevc" if name == "hevc" else None


def length_bytes(codec: NalCodec, extradata: bytes | None) -> int:
    """Bytes of the length in front of each unit, by the stream's ``avcC`` or ``hvcC``; 0 for start codes.

    ISO 14496-15, 5.3.3.1 and 8.3.3.1.
    """
    at = 4 if codec == "h264" else 21
    if not extradata or extradata[0] != 1 or len(extradata) <= at:
        return 0
    return (extradata[at] & 3) + 1


def nal_units(data: bytes, lengths: int) -> Iterator[bytes]:
    """The units in ``data``, none of them empty; ``lengths`` as :func:`length_bytes` says."""
    if not lengths:
        yield from annex_b(data)
        return
    at = 0
    while (start := at + lengths) < len(data):
        at = start + int.from_bytes(data[at:start], "big")
        yield data[start : max(at, start + 1)]


def annex_b(data: bytes) -> Iterator[bytes]:
    """The NAL units between start codes (Annex B); the zeros of a long start code stay at the previous unit's end."""
    start = data.find(b"\x00\x00\x01") + 3
    while 3 <= start < len(data):
        after = data.find(b"\x00\x00\x01", start)
        yield data[start : after if after >= 0 else len(data)] or b"\x00"
        start = after + 3 if after >= 0 else len(data)


def kind_of(codec: NalCodec, nal: bytes) -> int:
    """``nal_unit_type`` (ITU-T H.264, 7.4.1; H.265, 7.4.2.2)."""
    return nal[0] & 31 if codec == "h264" else nal[0] >> 1 & 63


def is_disposable(codec: NalCodec, data: bytes, lengths: int) -> bool:
    """Whether no other picture is predicted from this one, by its first slice.

    H.264: ``nal_ref_idc`` is 0 (7.4.1). H.265: a sub-layer non-reference picture (table 7-1).
    """
    for nal in nal_units(data, lengths):
        kind = kind_of(codec, nal)
        if codec == "h264" and 1 <= kind <= 5:
            return not nal[0] & 0x60
        if codec == "hevc" and kind < 32:
            return kind < 16 and kind % 2 == 0
    return False
