"""Exports a trained network to ONNX with the metadata of a YOLOv8 export, and scores such a file on videos."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from samples.actors import LABELS
from samples.network import STRIDES, StreetNet
from samples.pictures import INPUT_HEIGHT, INPUT_WIDTH, letterbox
from samples.score import Match, average_precision, detections, f1, match, truth_rows
from samples.truth import Truth
from samples.video import read

__all__ = ["report", "score", "write"]

_OUTPUT = (4 + len(LABELS), sum(INPUT_HEIGHT // stride * (INPUT_WIDTH // stride) for stride in STRIDES))
_METADATA = {
    "author": "the streamproc authors",
    "license": "Apache-2.0",
    "description": "streetnet, a small street detector trained on rendered pictures alone",
    "names": str(dict(enumerate(LABELS))),
    "stride": "32",
    "task": "detect",
    "imgsz": str([INPUT_HEIGHT, INPUT_WIDTH]),
}


def write(network: StreetNet, path: Path) -> None:
    """Writes images (B, 3, 384, 640) -> output0 (B, 7, 5040) at opset 13 with a dynamic batch."""
    example = torch.zeros(1, 3, INPUT_HEIGHT, INPUT_WIDTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer says of every fixed size that it is fixed
        torch.onnx.export(
            network.eval(), (example,), str(path), dynamo=False, opset_version=13, input_names=["images"],
            output_names=["output0"], dynamic_axes={"images": {0: "batch"}, "output0": {0: "batch"}},
        )  # fmt: skip
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, _METADATA)
    for dimension, size in zip(model.graph.output[0].type.tensor_type.shape.dim[1:], _OUTPUT, strict=True):
        dimension.dim_value = size  # the tracer left names in their place
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def score(model: Path, video: Path, confidence: float = 0.001, every: int = 1) -> list[Match]:
    """Runs a model over a video and matches every `every`-th frame against the truth beside it."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    truth = Truth.read(video.with_suffix(".truth.json"))
    matches: list[Match] = []
    for number, (frame, seen) in enumerate(zip(read(video), truth.frames, strict=True)):
        if number % every:
            continue
        planes = letterbox(frame)[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255
        (output,) = session.run(["output0"], {"images": planes})
        matches.append(match(detections(np.asarray(output)[0], confidence), truth_rows(seen)))
    return matches


def report(model: Path, folder: Path, name: str, every: int = 4) -> str:
    """Table of precision, recall and F1 at confidence 0.25 for each video of a folder, and AP50 for each class."""
    lines = [f"{name} (every {every}th frame, IoU 0.5)"]
    everything: list[Match] = []
    for video in sorted(folder.glob("*.mp4")):
        matches = score(model, video, every=every)
        everything += matches
        values = f1(matches, 0.25)
        lines.append(f"  {video.stem:9s} F1 {values[0]:.4f}  precision {values[1]:.4f}  recall {values[2]:.4f}")
    if not everything:
        return f"{name}: no videos in {folder}"
    values = f1(everything, 0.25)
    lines.append(f"  {'all':9s} F1 {values[0]:.4f}  precision {values[1]:.4f}  recall {values[2]:.4f}")
    points = [average_precision(everything, class_id) for class_id in range(len(LABELS))]
    table = "  ".join(f"{label} {value:.4f}" for label, value in zip(LABELS, points, strict=True))
    lines.append(f"  AP50 {table}  mAP50 {np.mean(points):.4f}")
    return "\n".join(lines)
