"""The RTSP server, and the client that pushes to others: live pictures of any camera, encoded and packetised once."""

from __future__ import annotations

from streamproc.rtsp.auth import Credentials
from streamproc.rtsp.feed import Feed, FeedStats
from streamproc.rtsp.limits import Limits
from streamproc.rtsp.packetizer import CLOCK_HZ, Picture
from streamproc.rtsp.push import Pusher, PushStats, probe_server
from streamproc.rtsp.server import RtspServer, ServerStats
from streamproc.rtsp.trouble import Treatment, Trouble

__all__ = [
    "CLOCK_HZ",
    "Credentials",
    "Feed",
    "FeedStats",
    "Limits",
    "Picture",
    "PushStats",
    "Pusher",
    "RtspServer",
    "ServerStats",
    "Treatment",
    "Trouble",
    "probe_server",
]
