"""Annotated live video: watched cameras are drawn and encoded, the others cost nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from streamproc.channel import Channel, Closed
from streamproc.ledger import AgeHistogram
from streamproc.sinks.base import Delivery, SinkCounts
from streamproc.sinks.live_encoder import require_software_codec
from streamproc.sinks.live_studio import Books, LiveStyle, Publish, Studio
from streamproc.types import Frame, FrameResult, Picture, UInt8Array

__all__ = ["LiveSink", "LiveStyle"]

_log = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 2.0


class LiveSink:
    """Turns the results of watched cameras into annotated H.264, and never answers deliveries.

    A camera that somebody watches has a thread of its own and a short inbox, from :meth:`watch` to :meth:`watch`; of
    one that nobody watches nothing is kept, drawn or encoded. Each result is drawn on its own picture. Between them,
    in order, come the frames that were not inferred, with the objects carried forward from the results before them:
    the picture keeps the camera's rate when inference does not. What is not shown is counted: ``unwatched`` (results
    alone); ``rate``, more than ``fps`` asks for; ``overload``, displaced by a newer picture; ``late``, known about
    after a later picture was shown; ``encoder``, refused by the encoder, which is made anew for the next picture;
    ``shutdown``.

    Args:
        publish: takes a camera's access units, for each camera; called on the camera's thread, must not wait. Of a
            camera that is not watched any more it is not called again.
        style: how pictures are shown.
        to_bgr: makes a new (h, w, 3) uint8 array of a picture, upright, BGR, full range; called on several threads.
        spent: is told how many ns of processor time went into a camera's picture; called on several threads.
    """

    name = "rtsp"
    essential = False

    def __init__(
        self,
        publish: Mapping[str, Publish],
        *,
        style: LiveStyle,
        to_bgr: Callable[[Picture], UInt8Array],
        spent: Callable[[str, int], None] = lambda camera, ns: None,
    ) -> None:
        self.capacity = max(8, 2 * len(publish))  # a batch of every camera, and the next one
        self._publish = dict(publish)
        self._style = style
        self._to_bgr = to_bgr
        self._spent = spent
        self._books = Books()
        self._studios: dict[str, Studio] = {}
        self._ending: list[Studio] = []
        self._closed = False

    @property
    def counts(self) -> SinkCounts:
        """Pictures shown, and pictures not shown by reason."""
        return self._books.counts

    @property
    def carried(self) -> int:
        """How many of the pictures shown were not inferred."""
        return self._books.carried

    def ages(self) -> AgeHistogram:
        """Milliseconds from a frame's capture to the publishing of its access unit, so far, as a copy."""
        return self._books.ages()

    def watch(self, camera: str, watched: bool) -> None:
        """Begin or end showing a camera; on the event loop. Saying the same again changes nothing."""
        if not watched:
            self._stop(camera, "unwatched")
        elif camera not in self._studios and not self._closed:
            self._studios[camera] = Studio(
                camera, self._publish[camera], self._style, self._to_bgr, self._books, self._spent
            )

    def request_keyframe(self, camera: str) -> None:
        """Make a camera's next picture a keyframe, if it is watched; on the event loop."""
        if camera in self._studios:
            self._studios[camera].request_keyframe()

    def not_inferred(self, frame: Frame) -> None:
        """Show a frame that will have no result, if its camera is watched; from any thread, never waits.

        All that is known about the frames before a result must be said before that result is handed over.
        """
        studio = self._studios.get(frame.camera)
        if studio is not None:
            # A camera that is not watched any more since a moment ago. Or a bug; the next result raises it.
            with contextlib.suppress(Closed):
                studio.offer(frame, None)

    async def start(self) -> None:
        """See whether pictures can be encoded.

        Raises:
            DependencyError: the installed PyAV has no encoder.
        """
        require_software_codec()

    async def run(self, inbox: Channel[Delivery]) -> None:
        """Show results until the inbox is closed and empty, then end every thread.

        A thread that does not end within 2 s (it hangs in a driver) is left behind with a warning.
        """
        try:
            async for delivery in inbox:
                self._reap()
                self._show(delivery.result)
        finally:
            await self._finish()

    def _show(self, result: FrameResult) -> None:
        studio = self._studios.get(result.frame.camera)
        if studio is None:
            self._books.lost("unwatched")
            return
        try:
            studio.offer(result.frame, result)
        except Closed:
            studio.done.result()  # the bug that ended the thread
            raise

    def _stop(self, camera: str, reason: str) -> None:
        studio = self._studios.pop(camera, None)
        if studio is not None:
            studio.stop(reason)
            self._ending.append(studio)

    def _reap(self) -> None:
        """Forget threads that have ended; raise the bug that ended one."""
        for studio in [studio for studio in self._ending if studio.done.done()]:
            self._ending.remove(studio)
            studio.done.result()

    async def _finish(self) -> None:
        self._closed = True
        for camera in list(self._studios):
            self._stop(camera, "shutdown")
        endings = {asyncio.wrap_future(studio.done): studio for studio in self._ending}
        if endings:
            await asyncio.wait(endings, timeout=_CLOSE_TIMEOUT_S)
        for future, studio in endings.items():
            if future.done():
                future.result()
            else:
                _log.warning(
                    "camera %s: its live encoder did not end within %.0f s and is left behind",
                    studio.camera,
                    _CLOSE_TIMEOUT_S,
                )
