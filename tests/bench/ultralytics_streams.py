"""Ultralytics over a list of video files, for an interpreter that has it: prints what it managed as JSON.

Run by test_against_ultralytics.py: ``PYTHON ultralytics_streams.py MODEL_FOLDER LIST.streams``.
"""

from __future__ import annotations

import json
import sys
import time

from ultralytics import YOLO

WARM_UP = 40
"""Pictures that do not count; what its readers decode ahead while the model is loaded is used up by then."""


def main(model: str, streams: str) -> None:
    """``stream_buffer``: every picture is looked at, where by default some are decoded and then left out."""
    results = YOLO(model, task="detect").track(
        source=streams,
        stream=True,
        persist=True,
        tracker="bytetrack.yaml",
        stream_buffer=True,
        imgsz=640,
        conf=0.25,
        iou=0.45,
        device="cpu",
        verbose=False,
    )
    pictures = objects = tracked = 0
    started_s = ended_s = 0.0
    for number, found in enumerate(results):
        ended_s = time.perf_counter()
        if number == WARM_UP - 1:
            started_s = ended_s
        elif number >= WARM_UP:
            pictures += 1
            objects += len(found.boxes)
            tracked += 0 if found.boxes.id is None else len(found.boxes.id)
    print(json.dumps({"pictures": pictures, "seconds": ended_s - started_s, "objects": objects, "tracked": tracked}))


if __name__ == "__main__":
    main(*sys.argv[1:])
