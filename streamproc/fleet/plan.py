"""How many processes a run's cameras need, which camera goes where, and why."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from streamproc.config import CameraConfig, Config
from streamproc.messages import encode_detections
from streamproc.tracking import CameraTracker
from streamproc.types import Detections, Frame, FrameResult, Picture

__all__ = ["Plan", "plan_workers", "spread"]

_BUSY: Final = 0.5
"""The share of the time for which one interpreter may be busy: above it a frame waits longer for its turn than it
takes (the mean wait of a queue with steady service at half load is half a service; Pollaczek and Khinchine)."""
_CORES_EACH: Final = 2
"""A process keeps one core busy with Python when it is full, and needs at least as much for its decoders."""
_PROBE_FRAMES: Final = 60
_PROBE_OBJECTS: Final = 10
_WHOLE: Final = 2.0
"""What all Python of a frame takes, as times of what the probe measures: tracking and encoding ten objects."""
_FEW: Final = 200.0
"""Frames a second that one process gets through on any machine; below it nothing is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``processes`` that share the cameras, and why so many."""

    processes: int
    reason: str

    def __str__(self) -> str:
        return f"{self.processes}: {self.reason}"


def plan_workers(config: Config, wanted: int | Literal["auto"]) -> Plan:
    """How many processes to run: as many as wanted, if there are as many cameras; or as few as keep every interpreter
    from being busy, by what a frame takes on this machine."""
    cameras = len(config.cameras)
    if wanted != "auto":
        if wanted <= cameras:
            return Plan(processes=wanted, reason="as asked for")
        return Plan(processes=cameras, reason=f"{wanted} were asked for, but there are no more cameras")
    cores = len(os.sched_getaffinity(0))
    frames_per_s = sum(_frames_per_s(camera, config.budget.fps) for camera in config.cameras.values())
    if cores < 2 * _CORES_EACH or frames_per_s <= _FEW or cameras == 1:
        return choose(cores=cores, cameras=cameras, frames_per_s=frames_per_s, frame_ms=None)
    return choose(cores=cores, cameras=cameras, frames_per_s=frames_per_s, frame_ms=frame_ms())


def choose(*, cores: int, cameras: int, frames_per_s: float, frame_ms: float | None) -> Plan:
    """The number of processes.

    Args:
        cores: of this machine that we may use.
        frames_per_s: of all cameras.
        frame_ms: milliseconds of Python a frame; None where it was not worth measuring.

    >>> print(choose(cores=16, cameras=64, frames_per_s=1536, frame_ms=0.8))
    3: 64 cameras with 1536 frames/s need 0.80 ms of Python each, 123 % of one interpreter
    >>> print(choose(cores=4, cameras=64, frames_per_s=1536, frame_ms=0.8))
    2: 64 cameras with 1536 frames/s need 0.80 ms of Python each, 123 % of one interpreter; 4 cores feed 2, not 3
    """
    most = max(1, min(cameras, cores // _CORES_EACH))
    if frame_ms is None:
        said = f"{cores} cores feed no more" if most == 1 and cameras > 1 else "one is enough"
        return Plan(processes=1, reason=f"{said} for {cameras} camera(s) with {frames_per_s:.0f} frames/s")
    load = frames_per_s * frame_ms / 1e3
    needed = max(1, math.ceil(load / _BUSY))
    reason = (
        f"{cameras} cameras with {frames_per_s:.0f} frames/s need {frame_ms:.2f} ms of Python each, "
        f"{100 * load:.0f} % of one interpreter"
    )
    if needed > most:
        reason += f"; {cores} cores feed {most}, not {needed}"
    return Plan(processes=min(needed, most), reason=reason)


def spread(costs: Mapping[str, float], processes: int) -> list[list[str]]:
    """Cameras for each process, so that the costs are even: the dearest first, each to where the least is so far
    (Graham, "Bounds on Multiprocessing Timing Anomalies", 1969).

    >>> spread({"a": 3, "b": 2, "c": 2, "d": 1}, 2)
    [['a', 'd'], ['b', 'c']]
    """
    loads = [0.0] * processes
    places: list[list[str]] = [[] for _ in range(processes)]
    for camera in sorted(costs, key=lambda name: -costs[name]):
        place = min(range(processes), key=lambda index: (loads[index], len(places[index])))
        places[place].append(camera)
        loads[place] += costs[camera]
    return places


def expected_costs(config: Config) -> dict[str, float]:
    """What each camera may cost before anything was measured, in frames a second."""
    return {name: _frames_per_s(camera, config.budget.fps) for name, camera in config.cameras.items()}


def _frames_per_s(camera: CameraConfig, fps: float) -> float:
    if camera.decode == "keyframes":
        fps = 1.0  # a keyframe a second is usual
    return fps if camera.sample_fps is None else min(fps, camera.sample_fps)


def frame_ms() -> float:
    """Milliseconds of Python that a frame with ten objects takes on this machine: tracking and encoding it, measured
    now, and the rest in proportion."""
    plane = np.zeros((2, 2), np.uint8)
    picture = Picture(planes=(plane, plane[:1, :1], plane[:1, :1]), layout="yuv420p")
    tracker = CameraTracker()
    corners = np.linspace(0, 900, _PROBE_OBJECTS, dtype=np.float32)
    boxes = np.stack([corners, corners, corners + 60, corners + 120], axis=1)
    confidence, class_ids = np.full(_PROBE_OBJECTS, 0.8, np.float32), np.zeros(_PROBE_OBJECTS, np.int64)
    times_ns = []
    for seq in range(_PROBE_FRAMES):
        started_ns = time.thread_time_ns()
        ids = tracker.update(boxes + np.float32(seq), confidence, class_ids, seq / 24)
        frame = Frame(
            camera="probe", seq=seq, pts_s=seq / 24, captured_ns=0, captured_utc_ns=0, live=True, picture=picture
        )
        found = Detections.of(boxes, confidence, class_ids, ids)
        encode_detections(FrameResult(frame=frame, detections=found, labels=(), model=""), site="", age_ms=0.0)
        times_ns.append(time.thread_time_ns() - started_ns)
    return _WHOLE * float(np.median(times_ns)) / 1e6
