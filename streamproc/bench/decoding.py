"""Decoding alone: the floor of every pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamproc.errors import FatalError
from streamproc.ledger import CameraLedger
from streamproc.sources.av_reader import AvReader

__all__ = ["Decoding", "measure_decoding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """``cpu_ms`` is processor time for each frame, user + system."""

    frames_per_s: float
    cpu_ms: float


def measure_decoding(cameras: Sequence[Sequence[Path]], seconds: float) -> Decoding:
    """Demux, decode and stamp every camera's files over and over, each on a thread of its own as in a run; for a
    process of its own.

    Raises:
        SourceError: a file cannot be read.
        FatalError: nothing came out of them.
    """
    stop = threading.Event()
    players = [_Player(f"camera{index}", files, stop) for index, files in enumerate(cameras)]
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    for player in players:
        player.start()
    for player in players:
        player.join(max(0.0, started_s + seconds - time.perf_counter()))
    stop.set()
    for player in players:
        player.join()
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    for player in players:
        if player.error is not None:
            raise player.error
    frames = sum(player.reader.emitted for player in players)
    if not frames:
        raise FatalError(f"no frame was decoded in {seconds:g} s. Give it more time: --seconds.")
    return Decoding(frames_per_s=frames / wall_s, cpu_ms=cpu_s * 1e3 / frames)


class _Player(threading.Thread):
    """Plays files over and over, and throws the frames away."""

    def __init__(self, camera: str, files: Sequence[Path], stop: threading.Event) -> None:
        super().__init__(name=camera, daemon=True)
        self._files = files
        self._stop_it = stop
        self.error: Exception | None = None
        self.reader = AvReader(
            camera,
            emit=lambda frame: None,
            ledger=CameraLedger(camera),
            on_online=lambda: None,
            stop=stop,
            realtime=False,
        )

    def run(self) -> None:
        try:
            while not self._stop_it.is_set():
                for file in self._files:
                    self.reader.read_file(file)
        except Exception as error:  # noqa: BLE001 - it is raised again where somebody waits
            self.error = error
