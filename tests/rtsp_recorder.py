"""A media server for tests: writes what is pushed to it to a file, by GStreamer's RTSP server.

Run by the system's Python, whose ``gi`` package has the GStreamer bindings:
``python3 rtsp_recorder.py FOLDER NAME... [--codec h264|h265] [--port PORT] [--login USER PASSWORD] [--digest]``. Takes
/NAME into FOLDER/NAME.h264 (or .h265), which a later one overwrites. Prints its port when it is ready; ends with its
standard input.
"""

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
gi.require_version("GstRtsp", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


def make_auth(user: str, password: str, *, digest: bool) -> "GstRtspServer.RTSPAuth":
    """Lets in who knows the password."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "publisher")
    if digest:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    return auth


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--codec", choices=("h264", "h265"), default="h264")
    parser.add_argument("--port", default="0")
    parser.add_argument("--login", nargs=2, default=[])
    parser.add_argument("--digest", action="store_true")
    args = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(args.port)
    if args.login:
        server.set_auth(make_auth(*args.login, digest=args.digest))
    for name in args.names:
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        as_file = f"video/x-{args.codec},stream-format=byte-stream,alignment=au"
        sink = f"filesink buffer-mode=unbuffered location={args.folder}/{name}.{args.codec}"
        factory.set_launch(f"( rtp{args.codec}depay name=depay0 ! {as_file} ! {sink} )")
        factory.add_role_from_structure(
            Gst.Structure.new_from_string(
                "publisher, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
            )
        )
        server.get_mount_points().add_factory(f"/{name}", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, lambda *_: loop.quit())
    loop.run()


if __name__ == "__main__":
    main()
