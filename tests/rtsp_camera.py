"""A camera for tests: serves an MP4, MKV or AVI file by GStreamer's RTSP server, at its own pace, once a client.

Run by the system's Python, whose ``gi`` package has the GStreamer bindings:
``python3 rtsp_camera.py FILE [--codec h264|h265|jpeg] [--login USER PASSWORD] [--udp-only] [--sets-once]``. Prints its
port when it is ready; ends with its standard input. ``--sets-once``: parameter sets come in the description of the
stream, not before each keyframe.
"""

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
gi.require_version("GstRtsp", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

DEMUXERS = {".mp4": "qtdemux", ".mkv": "matroskademux", ".avi": "avidemux"}
PAYLOADERS = {"h264": "rtph264pay", "h265": "rtph265pay", "jpeg": "rtpjpegpay"}


def require_login(server: "GstRtspServer.RTSPServer", factory: "GstRtspServer.RTSPMediaFactory", *login: str) -> None:
    """Serve only to a client that knows the password."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*login), token)
    server.set_auth(auth)
    factory.add_role_from_structure(
        Gst.Structure.new_from_string(
            "viewer, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--codec", choices=PAYLOADERS, default="h264")
    parser.add_argument("--login", nargs=2, default=[])
    parser.add_argument("--udp-only", action="store_true")
    parser.add_argument("--sets-once", action="store_true")
    args = parser.parse_args()
    Gst.init(None)
    payloader = f"{PAYLOADERS[args.codec]} name=pay0 pt={26 if args.codec == 'jpeg' else 96}"
    if args.codec != "jpeg":
        payloader += f" config-interval={0 if args.sets_once else -1}"
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( filesrc location={args.path} ! {DEMUXERS[args.path[-4:]]} ! {payloader} )")
    if args.udp_only:
        factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
    if args.login:
        require_login(server, factory, *args.login)
    server.get_mount_points().add_factory("/cam", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, lambda *_: loop.quit())
    loop.run()


if __name__ == "__main__":
    main()
