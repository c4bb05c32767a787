"""Plays an RTSP address by GStreamer's rtspsrc until it has seen some pictures.

Run by the system's Python: ``python3 gst_player.py URL tcp|udp COUNT``. Prints the count, or what went wrong.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

PATIENCE_S = 15


def main() -> None:
    url, transport, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    Gst.init(None)
    pipeline = Gst.parse_launch("rtspsrc name=source latency=100 ! parsebin ! fakesink name=sink signal-handoffs=true")
    source = pipeline.get_by_name("source")
    source.set_property("location", url)
    source.set_property("protocols", transport)
    loop = GLib.MainLoop()
    seen = 0
    problem = ""

    def on_picture(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            loop.quit()

    def on_message(_: object, message: "Gst.Message") -> None:
        nonlocal problem
        if message.type in (Gst.MessageType.ERROR, Gst.MessageType.WARNING, Gst.MessageType.EOS):
            parse = {Gst.MessageType.ERROR: message.parse_error, Gst.MessageType.WARNING: message.parse_warning}
            problem = str(parse[message.type]()) if message.type in parse else "end of stream"
            loop.quit()

    pipeline.get_by_name("sink").connect("handoff", on_picture)
    pipeline.get_bus().add_signal_watch()
    pipeline.get_bus().connect("message", on_message)
    GLib.timeout_add_seconds(PATIENCE_S, loop.quit)
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    pipeline.set_state(Gst.State.NULL)
    print(problem or seen)


main()
