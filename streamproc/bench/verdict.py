"""Whether a machine carries so many cameras: held against the budget, and if not, what gave way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamproc.bench.measured import CameraFigures, Figures

__all__ = ["LEAST_SHARE", "Verdict", "disturbance", "judge"]

LEAST_SHARE = 0.98
"""Of its frames, every camera publishes at least so many."""
_EDGE_FRAMES = 2  # may fall on either side of the time that is measured
_ONLINE = "online"
_BUSY = 0.9  # of the processor, above which more threads only wait for one another
_DISTURBING = 0.05  # of the processor, above which what others use is worth a word


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``reasons``: what broke, the gravest first; empty where the budget was kept."""

    reasons: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the budget was kept."""
        return not self.reasons

    def __str__(self) -> str:
        return "holds" if self.holds else "; ".join(self.reasons)


def judge(figures: Figures, *, max_age_ms: float, cores: int, expected_fps: Callable[[str], float | None]) -> Verdict:
    """Hold a trial against the budget.

    Args:
        max_age_ms: the budget's age, which 95 of 100 published frames must not exceed.
        cores: of this machine, to say whether it is busy.
        expected_fps: frames a second that a camera should publish; None where nobody knows.
    """
    reasons = [reason for check in (_ages, _states, _shares) for reason in check(figures, max_age_ms)]
    reasons += _rates(figures, expected_fps) if not reasons else []
    used = figures.cpu_cores + figures.others_cores
    if reasons and used > _BUSY * cores:
        others = f", {figures.others_cores:.2f} with other work" if figures.others_cores > _DISTURBING * cores else ""
        reasons.append(f"the processor is busy ({used:.2f} of {cores} cores{others})")
    return Verdict(reasons=tuple(reasons))


def disturbance(trials: Sequence[Figures], cores: int) -> tuple[str, ...]:
    """A note about other work on the machine, where there was so much that the figures are worth less."""
    most = max((figures.others_cores for figures in trials), default=0.0)
    if most <= _DISTURBING * cores:
        return ()
    return (f"other work kept up to {most:.2f} of {cores} cores busy meanwhile: measure again on an idle machine",)


def _ages(figures: Figures, max_age_ms: float) -> list[str]:
    p95_ms = figures.ages.percentile(95)
    if p95_ms is None:
        return [f"nothing was published within {max_age_ms:g} ms"]
    return [f"p95 age {p95_ms:.0f} ms, above {max_age_ms:g}"] if p95_ms > max_age_ms else []


def _states(figures: Figures, _: float) -> list[str]:
    away = [f"{name} is {camera.state}" for name, camera in figures.cameras.items() if camera.state != _ONLINE]
    return [_first(away)] if away else []


def _shares(figures: Figures, _: float) -> list[str]:
    """The camera that lost most, and how many lost too much."""
    short = {name: camera for name, camera in figures.cameras.items() if camera.share < LEAST_SHARE}
    if not short or not figures.ages.count:
        return []
    name = min(short, key=lambda one: short[one].share)
    worst = f"{name} published {100 * short[name].share:.1f} % of its frames ({_losses(short[name])})"
    return [worst if len(short) == 1 else f"{len(short)} cameras lost too many frames: {worst}"]


def _losses(camera: CameraFigures) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in camera.lost.items() if count) or "none came"


def _rates(figures: Figures, expected_fps: Callable[[str], float | None]) -> list[str]:
    """Cameras whose pictures come later and later: a file that is decoded too slowly plays in slow motion."""
    slow = []
    for name, camera in figures.cameras.items():
        expected = expected_fps(name)
        if (
            expected is not None
            and camera.fps * figures.seconds < LEAST_SHARE * expected * figures.seconds - _EDGE_FRAMES
        ):
            slow.append(f"{name} was read at {camera.fps:.1f} instead of {expected:.4g} FPS")
    return [_first(slow)] if slow else []


def _first(complaints: list[str]) -> str:
    return complaints[0] + (f", and {len(complaints) - 1} more" if len(complaints) > 1 else "")
