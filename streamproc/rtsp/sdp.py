"""What a feed says about itself (RFC 4566), made from the parameter sets in front of its keyframes."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Literal

from streamproc.rtsp.protocol import TRACK

__all__ = ["PAYLOAD_TYPE", "Description", "parameter_sets", "sdp"]

PAYLOAD_TYPE = 96
"""The first dynamic one (RFC 3551 section 6), and what libav's muxer writes."""

_START_CODE = re.compile(rb"\x00\x00\x01")
_H264_SETS = {7: "SPS", 8: "PPS"}  # ITU-T H.264 table 7-1
_HEVC_SETS = {32: "VPS", 33: "SPS", 34: "PPS"}  # ITU-T H.265 table 7-1


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A feed's codec and parameter sets: one of each kind, in the order SPS, PPS or VPS, SPS, PPS, without start
    codes."""

    codec: Literal["h264", "hevc"]
    sets: tuple[bytes, ...]


def parameter_sets(data: bytes, codec: Literal["h264", "hevc"]) -> Description | None:
    """The description that is in an Annex B keyframe; None where one of its sets is missing."""
    kinds = _H264_SETS if codec == "h264" else _HEVC_SETS
    starts = chain((match.end() for match in _START_CODE.finditer(data)), [len(data) + 3])
    found: dict[str, bytes] = {}
    for start, following in pairwise(starts):
        if start >= len(data):
            break
        number = data[start] & 0x1F if codec == "h264" else data[start] >> 1 & 0x3F
        if number in kinds:
            # The zero bytes before the next start code are its own, or padding (Annex B.1).
            found.setdefault(kinds[number], data[start : following - 3].rstrip(b"\0"))
        if len(found) == len(kinds):
            return Description(codec=codec, sets=tuple(found[kind] for kind in kinds.values()))
    return None


def sdp(name: str, description: Description) -> str:
    """The session description of a feed.

    The format parameters are those of RFC 6184 section 8.2.1 and RFC 7798 section 7.1; the address is left to SETUP.
    """
    sets = [base64.b64encode(one).decode() for one in description.sets]
    if description.codec == "h264":
        encoding = "H264"
        profile = description.sets[0][1:4].hex().upper()
        parameters = f"packetization-mode=1; profile-level-id={profile}; sprop-parameter-sets={','.join(sets)}"
    else:
        encoding = "H265"
        parameters = "; ".join(f"sprop-{kind}={one}" for kind, one in zip(("vps", "sps", "pps"), sets, strict=True))
    lines = (
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        f"s={name}",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "a=control:*",
        "a=range:npt=now-",
        f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
        f"a=rtpmap:{PAYLOAD_TYPE} {encoding}/90000",
        f"a=fmtp:{PAYLOAD_TYPE} {parameters}",
        f"a=control:{TRACK}",
    )
    return "\r\n".join(lines) + "\r\n"
