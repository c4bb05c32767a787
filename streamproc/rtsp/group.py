"""The pictures since the last keyframe, for viewers who join between two."""

from __future__ import annotations

from collections.abc import Iterator

from streamproc.rtsp.packetizer import Picture

__all__ = ["RecentGroup"]

_MOST_BYTES = 4 << 20
_MOST_PICTURES = 600
_HASTE = 64
"""How much faster than real time the past goes by: a group of four seconds in a sixteenth of one."""


class RecentGroup:
    """A group of pictures, from its keyframe to the newest. Empty while it is too big to be worth sending at once."""

    def __init__(self) -> None:
        self._pictures: list[Picture] = []
        self._bytes = 0
        self._newest = 0
        self._steps_back = (0, 0)

    def __len__(self) -> int:
        """Pictures in it."""
        return len(self._pictures)

    def add(self, picture: Picture) -> None:
        """The next picture in decoding order."""
        before, now = self._steps_back
        if picture.keyframe:
            self.clear()
            self._newest = picture.timestamp
            self._steps_back = (now, 0)
        elif not self._pictures:
            return
        else:
            self._newest = max(self._newest, picture.timestamp)
            self._steps_back = (before, max(now, self._newest - picture.timestamp))
        self._bytes += picture.payload_bytes
        if self._bytes > _MOST_BYTES or len(self._pictures) >= _MOST_PICTURES:
            self.clear()
        else:
            self._pictures.append(picture)

    def clear(self) -> None:
        """Forget it: the next picture that counts is a keyframe."""
        self._pictures.clear()
        self._bytes = 0

    def hastened(self) -> Iterator[tuple[Picture, int]]:
        """Each picture with the timestamp to send it under, so that players rush through the past.

        Shown at its own pace it would keep the viewer late for ever. Pictures that others may still be shown before
        (B-frames come late) keep their time, so that the order stays right: that is as far back as timestamps went
        within this group and the last.
        """
        settled = self._newest - max(self._steps_back)
        for picture in self._pictures:
            late = max(0, settled - picture.timestamp)
            yield picture, picture.timestamp + late - late // _HASTE
