"""What every encoder of ours is told alike: colours, and how many threads."""

from __future__ import annotations

from typing import NamedTuple

from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

__all__ = ["TICKS_PER_S", "Colors", "colors_of", "set_up"]

TICKS_PER_S = 90_000
"""The clock of MPEG video (ISO/IEC 13818-1, section 2.4.2) and of RTP (RFC 6184, section 8.2.1): finer than any frame
rate."""

_ONE_THREAD_PIXELS = 1920 * 1088  # one encoder thread keeps up with 1080p at 24 FPS; 4K needs a second


class Colors(NamedTuple):
    """How colours are coded."""

    matrix: Colorspace
    primaries: ColorPrimaries
    transfer: ColorTrc
    luma: tuple[float, float]
    """Weights of red and blue in luma."""


# What players that ignore the tags assume, by height: BT.709 from 720 lines up, BT.601 below. The tags say the same.
_HD_HEIGHT = 720
_HD = Colors(Colorspace.ITU709, ColorPrimaries.BT709, ColorTrc.BT709, (0.2126, 0.0722))
_SD = Colors(Colorspace.ITU601, ColorPrimaries.SMPTE170M, ColorTrc.SMPTE170M, (0.299, 0.114))


def colors_of(height: int) -> Colors:
    """The colours of a picture with so many lines."""
    return _HD if height >= _HD_HEIGHT else _SD


def set_up(context: VideoCodecContext, width: int, height: int) -> None:
    """Give a new encoder its threads and its colour tags, limited range."""
    colors = colors_of(height)
    context.thread_count = 1 if width * height <= _ONE_THREAD_PIXELS else 2
    context.colorspace, context.color_range = colors.matrix, ColorRange.MPEG
    context.color_primaries, context.color_trc = colors.primaries, colors.transfer
