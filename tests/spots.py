"""Models of numpy alone for cascades: one finds bright spots, one says how bright a crop is. In the server and here."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamproc.packing import pack_into, packed_shape
from streamproc.types import Picture

__all__ = ["add_shades", "add_spots", "packed", "picture", "shades", "spots"]

# The source of the functions below goes into it, so that the server answers what they answer here.
_SCRIPT = """
from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils

{function}

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            images = pb_utils.get_input_tensor_by_name(request, "images").as_numpy()
            try:
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("{output}", {name}(images))]))
            except ValueError as exc:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(exc))))
        return responses
"""
_CONFIG = """
backend: "python"
max_batch_size: {max_batch}
input [{{ name: "images" data_type: {dtype} dims: [32, 64, 3] }}]
output [{{ name: "{output}" data_type: TYPE_FP32 dims: [{dims}] }}]
instance_group [{{ kind: {kind} count: {count} }}]
parameters {{ key: "names" value {{ string_value: "{names}" }} }}
parameters {{ key: "task" value {{ string_value: "{task}" }} }}
"""


def spots(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(batch, 3, 6): around all bright pixels of a channel x1, y1, x2, y2, how bright they are, the channel."""
    found = np.zeros((len(images), 3, 6), np.float32)
    for image, rows in zip(images, found, strict=True):
        for channel, row in enumerate(rows):
            ys, xs = np.nonzero(image[:, :, channel] > 128)
            if len(xs):
                score = image[ys, xs, channel].mean() / 256
                row[:] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1, score, channel
    return found


def shades(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(batch, 3): the mean of each channel; no picture may have a red of 7 in its middle."""
    if (images[:, 16, 32, 0] == 7).any():
        raise ValueError("a seven")
    means: NDArray[np.float32] = images.mean(axis=(1, 2)).astype(np.float32)
    return means


def add_spots(repository: Path, name: str, **keys: Any) -> None:
    """A model that finds red, green and blue spots."""
    _add(repository, name, spots, **{"output": "boxes", "dims": "3, 6", "task": "detect"} | keys)


def add_shades(repository: Path, name: str, **keys: Any) -> None:
    """A classifier, red, green or blue."""
    _add(repository, name, shades, **{"output": "means", "dims": "3", "task": "classify"} | keys)


def _add(repository: Path, name: str, function: Any, **keys: Any) -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    defaults = {
        "max_batch": 8,
        "dtype": "TYPE_UINT8",
        "names": "['red', 'green', 'blue']",
        "kind": "KIND_CPU",
        "count": 1,
    }
    (folder.parent / "config.pbtxt").write_text(_CONFIG.format(**defaults | keys))
    source = inspect.getsource(function)
    script = _SCRIPT.format(function=source, output=keys["output"], name=function.__name__)
    (folder / "model.py").write_text(script)


def picture(size: tuple[int, int], *rectangles: tuple[int, int, int, int, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """A black picture (height, width, 3) with rectangles x1, y1, x2, y2 of a colour."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for x1, y1, x2, y2, colour in rectangles:
        image[y1:y2, x1:x2] = colour
    return image


def packed(size: tuple[int, int], *images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB pictures as they go to a cascade for pictures of up to ``size``."""
    rows = np.zeros((len(images), *packed_shape(size)), np.uint8)
    for image, row in zip(images, rows, strict=True):
        pack_into(Picture(planes=(image,), layout="rgb24"), row)
    return rows
