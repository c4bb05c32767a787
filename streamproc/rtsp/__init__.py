"""The RTSP server: live pictures of any camera, to any client, encoded and packetised once."""

from __future__ import annotations

from streamproc.rtsp.auth import Credentials
from streamproc.rtsp.feed import Feed, FeedStats
from streamproc.rtsp.limits import Limits
from streamproc.rtsp.server import RtspServer, ServerStats

__all__ = ["Credentials", "Feed", "FeedStats", "Limits", "RtspServer", "ServerStats"]
