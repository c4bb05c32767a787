"""From pictures to a vision transformer's input: what Hugging Face's ViTImageProcessor does, with numpy alone.

Copy the model's own ``preprocessor_config.json`` over the one beside this file.
"""

import json
from pathlib import Path

import numpy as np

__all__ = ["extract"]

_CONFIG = json.loads(Path(__file__).with_name("preprocessor_config.json").read_text(encoding="utf-8"))
if _CONFIG.get("resample", 2) != 2:
    raise ValueError(f"preprocessor_config.json: resample is {_CONFIG['resample']}; expected 2, bilinear, as ViTs have")
_HEIGHT, _WIDTH = _CONFIG["size"]["height"], _CONFIG["size"]["width"]
_MEAN, _STD = (np.array(_CONFIG[key], np.float32) for key in ("image_mean", "image_std"))
_RESCALE = np.float32(_CONFIG.get("rescale_factor", 1 / 255))


def extract(image):
    """pixel_values (batch, 3, height, width) float32 of uint8 RGB pictures (batch, any height, any width, 3)."""
    values = (_resized(image) * _RESCALE - _MEAN) / _STD
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), dtype=np.float32)


def _resized(images):
    """Resized to within a grey level of Pillow, which the processor asks: across, then down, rounded after each."""
    count, height, width, channels = images.shape
    across = _rounded(_weights(width, _WIDTH) @ images.astype(np.float32))
    rows = across.reshape(count, height, _WIDTH * channels)
    return _rounded(_weights(height, _HEIGHT) @ rows).reshape(count, _HEIGHT, _WIDTH, channels)


def _weights(old, new):
    """(new, old): how much each pixel counts. Where a picture shrinks, a new pixel is made of all that it covers."""
    step = old / new
    centres = (np.arange(new) + 0.5) * step
    distances = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(step, 1.0)
    weights = np.maximum(1 - distances, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _rounded(values):
    return np.floor(values + np.float32(0.5))
