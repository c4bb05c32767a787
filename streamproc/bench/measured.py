"""What a trial came to: ages, losses and use of the machine, once it had warmed up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamproc.bench.samples import Ages, Second
from streamproc.bench.trials import Moment, Record

__all__ = ["CameraFigures", "Figures", "GpuFigures", "Instant", "figures_of"]

_LOST = ("behind", "overload", "stale", "late", "engine", "sink")
"""Reasons that are the machine's fault; the others are the camera's, or were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFigures:
    """One camera: ``fps`` published, the ``share`` of its frames (0..1) that were, the others ``lost`` by reason;
    ``state`` in the end."""

    fps: float
    share: float
    lost: Mapping[str, int]
    age_ms: Mapping[str, float | None]
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFigures:
    """All GPUs: how many were ``busy`` and ``decoding`` on average; memory that was not in use before."""

    busy: float
    decoding: float
    memory_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """A second of the trial, warm-up included: ``at_s`` its end, ages of what was published in it."""

    at_s: float
    age_ms: Mapping[str, float | None]
    published: int
    rss_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A trial after its warm-up, over ``seconds``.

    ``cpu_cores``: processor time of all its processes, user + system, a second; ``others_cores``: what else went on
    on the same cores, of which a measurement should see nothing. ``rss_mb``: the most that was resident
    at any look, in 10^6 bytes. ``inferred_fps``: of all cameras together.
    """

    seconds: float
    cameras: Mapping[str, CameraFigures]
    ages: Ages
    inferred_fps: float
    cpu_cores: float
    others_cores: float
    rss_mb: float
    gpu: GpuFigures | None
    timeline: tuple[Instant, ...]

    @property
    def published_fps(self) -> float:
        """Of all cameras together."""
        return sum(camera.fps for camera in self.cameras.values())

    @property
    def share(self) -> float:
        """Of all frames, how many were published: 0..1; 0 without frames."""
        return _share(self.ages.count, sum(self.lost.values()))

    @property
    def lost(self) -> dict[str, int]:
        """Frames that were not published, by reason."""
        return dict(sum((Counter(camera.lost) for camera in self.cameras.values()), Counter[str]()))


def figures_of(record: Record, *, warm_up: int) -> Figures:
    """A trial's figures without its first ``warm_up`` seconds, of which there are fewer than it has in all."""
    moments = record.moments
    start, counted = moments[warm_up - 1], moments[warm_up:]
    seconds = counted[-1].second.at_s - start.second.at_s
    usage_s = counted[-1].usage.at_s - start.usage.at_s
    cpu_s = counted[-1].usage.cpu_s - start.usage.cpu_s
    busy_s = counted[-1].usage.busy_s - start.usage.busy_s
    cameras = {name: _camera([m.second for m in counted], name, seconds) for name in start.second.cameras}
    return Figures(
        seconds=round(seconds, 3),
        cameras=cameras,
        ages=Ages.together(one.ages for m in counted for one in m.second.cameras.values()),
        inferred_fps=round(sum(one.inferred for m in counted for one in m.second.cameras.values()) / seconds, 2),
        cpu_cores=round(cpu_s / usage_s, 3),
        others_cores=round(max(0.0, busy_s - cpu_s) / usage_s, 3),
        rss_mb=round(max(m.usage.rss_bytes for m in counted) / 1e6, 1),
        gpu=_gpu(record, counted),
        timeline=tuple(_instant(moment, moments[0].second.at_s) for moment in moments),
    )


def _camera(seconds: Sequence[Second], name: str, passed_s: float) -> CameraFigures:
    parts = [second.cameras[name] for second in seconds]
    lost = sum((Counter({reason: part.lost.get(reason, 0) for reason in _LOST}) for part in parts), Counter[str]())
    published = sum(part.published for part in parts)
    return CameraFigures(
        fps=round(published / passed_s, 2),
        share=round(_share(published, lost.total()), 4),
        lost=dict(lost),
        age_ms=Ages.together(part.ages for part in parts).summary(),
        state=parts[-1].state,
    )


def _share(published: int, lost: int) -> float:
    return published / (published + lost) if published + lost else 0.0


def _gpu(record: Record, counted: Sequence[Moment]) -> GpuFigures | None:
    readings = [moment.gpu for moment in counted if moment.gpu is not None]
    if not readings or record.gpu_before is None:
        return None
    return GpuFigures(
        busy=round(sum(reading.busy for reading in readings) / len(readings), 3),
        decoding=round(sum(reading.decoding for reading in readings) / len(readings), 3),
        memory_mb=round((max(reading.memory_bytes for reading in readings) - record.gpu_before.memory_bytes) / 1e6, 1),
    )


def _instant(moment: Moment, first_s: float) -> Instant:
    cameras = moment.second.cameras.values()
    return Instant(
        at_s=round(moment.second.at_s - first_s + 1, 2),
        age_ms=Ages.together(one.ages for one in cameras).summary(),
        published=sum(one.published for one in cameras),
        rss_mb=round(moment.usage.rss_bytes / 1e6, 1),
    )
