from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.rtsp.transport import Delivery, choose


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("RTP/AVP/TCP;unicast;interleaved=0-1", Delivery(interleaved=True, rtp=0, rtcp=1)),
        ("RTP/AVP/TCP", Delivery(interleaved=True, rtp=0, rtcp=1)),
        ("RTP/AVP;unicast;client_port=4588-4589", Delivery(interleaved=False, rtp=4588, rtcp=4589)),
        ("rtp/avp/udp; unicast ; Client_Port=4588;mode=play", Delivery(interleaved=False, rtp=4588, rtcp=4589)),
        ("RTP/SAVP;client_port=1-2,RTP/AVP;client_port=6-7", Delivery(interleaved=False, rtp=6, rtcp=7)),
        ("RTP/AVP;multicast;client_port=4588-4589", None),
        ("RTP/AVP;unicast;client_port=4588-4589;mode=record", None),
        ("RTP/AVP;unicast", None),
        ("RTP/AVP;client_port=0-1", None),
        ("RTP/AVP;client_port=65535", None),
        ("RTP/AVP;client_port=70000-70001", None),
        ("RTP/AVP/TCP;interleaved=300-301", None),
        ("RTP/AVP/TCP;interleaved=2-2", None),
        ("", None),
    ],
)
def test_the_first_offer_that_can_be_met(header: str, expected: Delivery | None) -> None:
    assert choose(header) == expected


@given(st.text())
def test_any_header_is_met_or_refused(header: str) -> None:
    assert choose(header) is None or isinstance(choose(header), Delivery)
