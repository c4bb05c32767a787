"""The Transport header of SETUP (RFC 2326 section 12.39): how a viewer wants its packets."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Delivery", "choose"]

_PAIR = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Where the RTP and the RTCP packets go: channels of the RTSP connection, or UDP ports of the client."""

    interleaved: bool
    rtp: int
    rtcp: int


def choose(header: str) -> Delivery | None:
    """The first of a client's offers that can be met; None when there is none.

    >>> choose("RTP/AVP;multicast,RTP/AVP/TCP;unicast;interleaved=2-3")
    Delivery(interleaved=True, rtp=2, rtcp=3)
    """
    for offer in header.split(","):
        profile, *parameters = (part.strip() for part in offer.split(";"))
        values = dict(parameter.lower().partition("=")[::2] for parameter in parameters)
        if "multicast" in values or values.get("mode", "play").strip('"') != "play":
            continue
        delivery = None
        match profile.upper():
            case "RTP/AVP/TCP":
                delivery = _pair(values.get("interleaved", "0-1"), interleaved=True, most=255)
            case "RTP/AVP" | "RTP/AVP/UDP":
                delivery = _pair(values.get("client_port", ""), interleaved=False, most=65_535)
        if delivery is not None:
            return delivery
    return None


def _pair(text: str, *, interleaved: bool, most: int) -> Delivery | None:
    """``4588-4589``, or the first of the two alone."""
    match = _PAIR.fullmatch(text)
    if match is None:
        return None
    rtp = int(match[1])
    rtcp = int(match[2]) if match[2] else rtp + 1
    least = 0 if interleaved else 1
    if not (least <= rtp <= most and least <= rtcp <= most and rtp != rtcp):
        return None
    return Delivery(interleaved=interleaved, rtp=rtp, rtcp=rtcp)
