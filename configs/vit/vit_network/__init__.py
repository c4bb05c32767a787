"""A vision transformer from pictures to classes, in one function: its feature extractor and its network.

The network is ``model.onnx`` beside this file, as ``optimum-cli export onnx`` writes it.
"""

from pathlib import Path

import onnxruntime
from vit_features import extract

__all__ = ["classify"]

# One thread: Triton runs as many instances side by side as it is told.
_options = onnxruntime.SessionOptions()
_options.intra_op_num_threads = 1
_session = onnxruntime.InferenceSession(
    Path(__file__).with_name("model.onnx"), _options, providers=["CPUExecutionProvider"]
)


def classify(image):
    """logits (batch, classes) float32 of uint8 RGB pictures (batch, height, width, 3)."""
    return _session.run(["logits"], {"pixel_values": extract(image)})[0]
