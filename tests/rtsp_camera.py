"""A camera for tests: serves an MP4 or MKV file with H.264 by GStreamer's RTSP server, at its own pace, once a client.

Run by the system's Python, whose ``gi`` package has the GStreamer bindings:
``python3 rtsp_camera.py FILE [USER PASSWORD]``. Prints its port when it is ready; ends with its standard input.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


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
    path, *login = sys.argv[1:]
    Gst.init(None)
    demuxer = "matroskademux" if path.endswith(".mkv") else "qtdemux"
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( filesrc location={path} ! {demuxer} ! rtph264pay name=pay0 pt=96 config-interval=-1 )")
    if login:
        require_login(server, factory, *login)
    server.get_mount_points().add_factory("/cam", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IO_IN | GLib.IO_HUP, lambda *_: loop.quit())
    loop.run()


if __name__ == "__main__":
    main()
