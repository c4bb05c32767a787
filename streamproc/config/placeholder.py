"""``{camera}``, the one placeholder in paths and addresses: each camera's name takes its place."""

from __future__ import annotations

from streamproc.config.refusals import RefusedError

__all__ = ["check_one_per_camera", "filled_in"]

_PLACEHOLDER = "{camera}"


def filled_in(text: str, noun: str) -> str:
    """The text as it is for a camera, to examine; ``noun`` (``a path``) goes into the message that refuses braces.

    >>> filled_in("out/{camera}.mp4", "a path")
    'out/camera.mp4'
    """
    bare = text.replace(_PLACEHOLDER, "camera")
    if "{" in bare or "}" in bare:
        remedy = f"Write {_PLACEHOLDER} where the camera's name belongs, and no other braces."
        raise RefusedError(expected=f"{noun} with no placeholder but {_PLACEHOLDER}", remedy=remedy)
    return bare


def check_one_per_camera(text: str, cameras: int, *, noun: str, need: str, example: str) -> None:
    """Refuse what would be the same for several cameras: every one needs ``need`` (``a file of its own``)."""
    if cameras > 1 and _PLACEHOLDER not in text:
        remedy = f"Every camera needs {need}: write, for example, {example}."
        raise RefusedError(expected=f"{_PLACEHOLDER} in the {noun}, for {cameras} cameras", remedy=remedy)
