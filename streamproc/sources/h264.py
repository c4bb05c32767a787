"""Finds pictures that were lost on the way to the decoder.

When a reference picture is missing, libav's H.264 decoder copies its neighbour in silence and everything up to the
next keyframe comes out smeared, flagged as sound. The stream itself tells: ``frame_num`` counts reference pictures.
(H.265 needs no such help, its decoder names the missing reference.)
"""

from __future__ import annotations

from dataclasses import dataclass

from streamproc.sources.nal import HEAD_BYTES, annex_b, length_bytes, nal_units

__all__ = ["LostReferenceDetector"]

_SLICE, _IDR_SLICE, _SPS = 1, 5, 7
_HEADER_BYTES = 256
"""Far more than a slice header up to frame_num, and than an SPS with scaling lists up to what is read of it."""
_CHROMA_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


class _Bits:
    """Reads the bits of a NAL unit's payload; ValueError past its end."""

    def __init__(self, nal: bytes) -> None:
        payload = nal[1:_HEADER_BYTES].replace(b"\x00\x00\x03", b"\x00\x00")  # emulation prevention, 7.4.1
        self._value = int.from_bytes(payload, "big")
        self._left = 8 * len(payload)

    def u(self, count: int) -> int:
        """An unsigned number of ``count`` bits."""
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def ue(self) -> int:
        """An unsigned Exp-Golomb number (9.1)."""
        zeros = 0
        while not self.u(1):
            zeros += 1
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """A signed Exp-Golomb number (9.1.1)."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)


@dataclass(frozen=True, slots=True)
class _Sps:
    """What is needed of a sequence parameter set (7.3.2.1.1)."""

    frame_num_bits: int
    separate_planes: bool
    gaps_allowed: bool


class LostReferenceDetector:
    """Watches the ``frame_num`` of one H.264 stream's pictures in decoding order (ITU-T H.264, 7.4.3).

    Streams that number with gaps on purpose are left alone. A stream that resets the count in mid-flight (memory
    management control operation 5, unknown in cameras) would be taken for damaged up to its next keyframe.

    Args:
        extradata: the stream's out-of-band parameter sets: ``avcC`` (ISO 14496-15, length-prefixed packets), Annex B,
            or None.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self._length_bytes = length_bytes("h264", extradata)
        self._sps: _Sps | None = None
        self._reference: int | None = None
        if extradata and self._length_bytes:
            self._learn(extradata[8 : 8 + int.from_bytes(extradata[6:8], "big")])
        elif extradata:
            for nal in annex_b(extradata):
                self._learn(nal)

    def resync(self) -> None:
        """Accept whatever picture comes next: pictures were left out on purpose."""
        self._reference = None

    def lost_before(self, packet: bytes | memoryview) -> bool:
        """Whether a reference picture is missing between the last packet and this one."""
        head = bytes(packet[:HEAD_BYTES])
        for nal in nal_units(head, self._length_bytes):
            kind = nal[0] & 31
            if kind == _SPS:
                self._learn(nal)
            elif kind == _IDR_SLICE:
                self._reference = 0
                return False
            elif kind == _SLICE:
                return self._check(nal)
        self._reference = None
        return False

    def _check(self, nal: bytes) -> bool:
        sps, reference = self._sps, self._reference
        if sps is None or sps.gaps_allowed:
            return False
        try:
            frame_num = _frame_num(nal, sps)
        except ValueError:
            self._reference = None  # cut off or damaged: the decoder will say so
            return False
        if nal[0] >> 5 & 3:
            self._reference = frame_num
        elif reference is None:
            # A picture that is not referred to is numbered one past the last reference.
            self._reference = (frame_num - 1) % (1 << sps.frame_num_bits)
        return reference is not None and (frame_num - reference) % (1 << sps.frame_num_bits) > 1

    def _learn(self, nal: bytes) -> None:
        if nal and nal[0] & 31 == _SPS:
            try:
                self._sps = _parse_sps(nal)
            except ValueError:
                self._sps = None


def _frame_num(nal: bytes, sps: _Sps) -> int:
    """``frame_num`` of a slice (7.3.3)."""
    bits = _Bits(nal)
    for _ in ("first_mb_in_slice", "slice_type", "pic_parameter_set_id"):
        bits.ue()
    if sps.separate_planes:
        bits.u(2)
    return bits.u(sps.frame_num_bits)


def _parse_sps(nal: bytes) -> _Sps:
    bits = _Bits(nal)
    profile = bits.u(8)
    bits.u(16)  # constraint flags, level
    bits.ue()  # seq_parameter_set_id
    separate_planes = False
    if profile in _CHROMA_PROFILES:
        chroma_format = bits.ue()
        separate_planes = chroma_format == 3 and bool(bits.u(1))
        bits.ue(), bits.ue(), bits.u(1)  # bit depths, qpprime_y_zero_transform_bypass_flag
        if bits.u(1):
            for index in range(8 if chroma_format != 3 else 12):
                if bits.u(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    frame_num_bits = bits.ue() + 4
    order_type = bits.ue()
    if order_type == 0:
        bits.ue()
    elif order_type == 1:
        bits.u(1), bits.se(), bits.se()
        for _ in range(bits.ue()):
            bits.se()
    bits.ue()  # max_num_ref_frames
    if frame_num_bits > 16:
        raise ValueError(f"log2_max_frame_num: expected at most 16, got {frame_num_bits}")
    return _Sps(frame_num_bits, separate_planes, bool(bits.u(1)))


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    """7.3.2.1.1.1."""
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last
