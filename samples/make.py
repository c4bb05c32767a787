"""Renders the sample videos and their truth, or any other seed, camera and length, into a directory.

python -m samples.make render
python -m samples.make render --camera plaza --seed 77 --seconds 5 --out /some/where
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.layout import CAMERAS
from samples.traffic import FPS
from samples.truth import LINES, Truth
from samples.video import write
from samples.world import Seen, World

__all__ = ["SECONDS", "SEEDS", "main", "render"]

SEEDS = {"gate": 5, "yard": 8, "crossing": 9, "plaza": 9}
"""The seeds of the four videos of this folder. The detector's training never sees a seed below 10,000."""
SECONDS = 18.0


def render(camera: str, seed: int, seconds: float, folder: Path) -> Path:
    """Writes CAMERA.mp4 and CAMERA.truth.json into a folder and returns the video's path."""
    cv2.setNumThreads(1)
    world = World(camera, seed, round(seconds * FPS))
    frames: list[list[Seen]] = []

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for picture, truth in world.play():
            frames.append(truth)
            yield picture

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{camera}.mp4"
    write(path, pictures())
    Truth(camera, LINES[camera], frames).write(folder / f"{camera}.truth.json")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(prog="python -m samples.make", description=(__doc__ or "").split("\n")[0])
    command = parser.add_subparsers(dest="command", required=True).add_parser("render", help="videos and truth")
    command.add_argument(
        "--camera", action="append", choices=sorted(CAMERAS), help="may be repeated; default: all four"
    )
    command.add_argument("--seed", type=int, help="default: the seed of the sample video")
    command.add_argument("--seconds", type=float, default=SECONDS)
    command.add_argument("--out", type=Path, default=Path(__file__).parent, help="default: this folder")
    command.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    cameras = options.camera or list(SEEDS)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(render, camera, SEEDS[camera] if options.seed is None else options.seed,
                        options.seconds, options.out)
            for camera in cameras
        ]  # fmt: skip
        for job in jobs:
            print(job.result())


if __name__ == "__main__":
    main()
