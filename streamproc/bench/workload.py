"""The cameras of a trial: those of a configuration, repeated as often as it takes."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from streamproc.config import CameraConfig, Config, EngineConfig, FileConfig
from streamproc.sources.probe import Look, probe
from streamproc.sources.repeating import cut_openings, repeat_file

__all__ = ["SPARE_S", "Workload", "look_around", "with_engine"]

_PHASES, _PHASE_STEP = 8, 5  # keyframes of copies: eight places in a group of pictures, in the order 0, 5, 2, 7, ...
SPARE_S = 10
"""Longer than a trial a file should last: cameras play while the last of them is opened, and while the run ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What to measure with: ``base`` has the cameras to repeat and no outputs, ``sends`` what each of them is for
    people (``h264 1920x1080 at 24 FPS``), ``rates`` its frames a second (None: it does not tell); ``notes`` says what
    is other than in a run. ``openings``: short files of each camera, one of which every copy of it plays first."""

    base: Config
    sends: Mapping[str, str]
    rates: Mapping[str, float | None]
    notes: tuple[str, ...] = ()
    openings: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    @property
    def fastest(self) -> float | None:
        """The highest rate of any camera; None where one does not tell."""
        known = [rate for rate in self.rates.values() if rate is not None]
        return max(known) if len(known) == len(self.rates) else None

    def reachable(self, rates: Sequence[float]) -> tuple[float, ...]:
        """Those of some rates that differ here: what is above the fastest camera is all that it sends."""
        limit = self.fastest or math.inf
        return tuple(dict.fromkeys(min(rate, limit) for rate in rates))

    @contextmanager
    def lasting(self, at_least_s: float) -> Iterator[Workload]:
        """The same with files that go on for so long, while the block lasts.

        A file that ends is opened anew, and copies of a file all end at once, as all their keyframes come at once,
        each of which takes ten times as long to decode as another picture: so much work in one moment is not what
        cameras make of a machine. So files last, and copies begin with parts of a group of pictures. Several files of
        one camera stay as they are.

        Raises:
            SourceError: a file cannot be read.
        """
        with TemporaryDirectory(prefix="streamproc-bench-") as folder:
            cameras, openings = dict(self.base.cameras), {}
            for index, (name, camera) in enumerate(self.base.cameras.items()):
                if len(camera.files) == 1:
                    own = Path(folder) / str(index)
                    own.mkdir()
                    longer = repeat_file(name, camera.files[0], own / "all.mkv", at_least_s)
                    cameras[name] = camera.model_copy(update={"files": (longer,)})
                    openings[name] = cut_openings(name, longer, own, _PHASES)
            yield replace(self, base=self.base.model_copy(update={"cameras": cameras}), openings=openings)

    def with_cameras(self, count: int, fps: float) -> Config:
        """The configuration of a trial: so many cameras in real time, each at ``fps`` at most."""
        cameras = dict(itertools.islice(self._repeated(fps), count))
        budget = self.base.budget.model_copy(update={"fps": fps})
        return self.base.model_copy(update={"cameras": cameras, "budget": budget})

    def expected_fps(self, camera: str, fps: float) -> float | None:
        """Frames a second that a camera of a trial should publish; None where nobody knows."""
        name = camera.partition("~")[0]
        rate, settings = self.rates[name], self.base.cameras[name]
        if rate is None or settings.decode != "all":
            return None
        return min(rate, fps, settings.sample_fps or fps)

    def _repeated(self, fps: float) -> Iterator[tuple[str, CameraConfig]]:
        """Cameras without end: gate, yard, gate~2, yard~2, ..."""
        for number in itertools.count(1):
            for name, camera in self.base.cameras.items():
                live = _in_real_time(camera, self.rates[name], fps)
                phase = (number - 1) * _PHASE_STEP % _PHASES
                if phase and self.openings.get(name):
                    live = live.model_copy(update={"files": (self.openings[name][phase - 1], *live.files)})
                yield name if number == 1 else f"{name}~{number}", live


def _in_real_time(camera: CameraConfig, rate: float | None, fps: float) -> CameraConfig:
    wanted = fps if camera.sample_fps is None else min(fps, camera.sample_fps)
    sample_fps = wanted if rate is None or wanted < rate else None
    changed: dict[str, object] = {"sample_fps": sample_fps}
    return camera.model_copy(update=changed | ({"realtime": True, "loop": True} if camera.files else {}))


def _without_outputs(config: Config) -> tuple[Config, tuple[str, ...]]:
    """A configuration without outputs, and what is to be said about that.

    Where it has a broker or a file of detections, messages are made as for them, and thrown away.
    """
    outputs = [name for name in ("mqtt", "file", "video", "rtsp") if getattr(config, name) is not None]
    if not outputs:
        return config, ()
    changes: dict[str, object] = dict.fromkeys(outputs)
    note = f"nothing was sent or written ({', '.join(outputs)} left out)"
    if config.mqtt is not None or config.file is not None:
        changes["file"] = FileConfig(path=os.devnull)
        note += "; messages were made and thrown away"
    return config.model_copy(update=changes), (note,)


def with_engine(config: Config, engine: Literal["openvino", "onnxruntime", "null"]) -> Config:
    """The configuration with another engine, as that is by default."""
    changes: dict[str, object] = {"engine": EngineConfig(kind=engine)}
    if engine == "null":  # which has other classes
        cameras = {name: camera.model_copy(update={"classes": None}) for name, camera in config.cameras.items()}
        changes["cameras"] = cameras
    return config.model_copy(update=changes)


async def look_around(config: Config) -> Workload:
    """Open every camera once, to know what it sends.

    Raises:
        SourceError: one cannot be read.
    """
    base, notes = _without_outputs(config)
    looks = await asyncio.gather(*(asyncio.to_thread(_look, name, camera) for name, camera in base.cameras.items()))
    seen = dict(zip(base.cameras, looks, strict=True))
    return Workload(
        base=base,
        sends={name: str(look) for name, look in seen.items()},
        # What an RTSP stream claims is too often wrong to be held against it.
        rates={name: look.rate if base.cameras[name].files else None for name, look in seen.items()},
        notes=notes,
    )


def _look(name: str, camera: CameraConfig) -> Look:
    username, password = camera.login
    return probe(
        name,
        files=camera.files,
        url=camera.url,
        transport=camera.transport,
        username=username,
        password=password,
    )
