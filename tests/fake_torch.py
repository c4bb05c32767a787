"""As much of PyTorch as a served TorchScript classifier asks for, in numpy, for machines that do not have it.

Its one network gives the mean of each channel, and the pictures themselves as an output that nobody wants. A test makes
it ``sys.modules["torch"]``, or copies this file as torch.py for another process.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Tensor", "cuda", "device", "from_numpy", "inference_mode", "jit", "save_means", "set_num_threads", "tensor"]

__version__ = "0.0"
threads: list[int] = []
"""What :func:`set_num_threads` was told."""


class Tensor:
    """An array with the methods of a tensor; ``place`` is its device."""

    def __init__(self, values: Any, place: str = "cpu") -> None:
        self.values: np.ndarray = np.asarray(values)
        self.place = place

    def _like(self, values: Any) -> Tensor:
        return Tensor(values, self.place)

    def to(self, place: str) -> Tensor:
        return Tensor(self.values, place)

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def numpy(self) -> np.ndarray:
        if self.place != "cpu":
            raise TypeError(f"can't convert {self.place} device type tensor to numpy")
        return self.values

    def float(self) -> Tensor:
        return self._like(self.values.astype(np.float32))

    def contiguous(self) -> Tensor:
        return self._like(np.ascontiguousarray(self.values))

    def permute(self, *order: int) -> Tensor:
        return self._like(self.values.transpose(order))

    def reshape(self, *shape: int) -> Tensor:
        return self._like(self.values.reshape(shape))

    def flip(self, axis: int) -> Tensor:
        return self._like(np.flip(self.values, axis))

    def __sub__(self, other: Tensor) -> Tensor:
        return self._with(other, self.values - other.values)

    def __mul__(self, other: Tensor) -> Tensor:
        return self._with(other, self.values * other.values)

    def _with(self, other: Tensor, values: np.ndarray) -> Tensor:
        if self.place != other.place:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {self.place}, {other.place}!")
        return self._like(values)


def tensor(values: Any) -> Tensor:
    """A tensor of float32."""
    return Tensor(np.array(values, np.float32))


def from_numpy(array: np.ndarray) -> Tensor:
    """The array itself."""
    return Tensor(array)


def device(kind: str, number: int = 0) -> str:
    """Its name."""
    return kind if kind == "cpu" else f"{kind}:{number}"


def set_num_threads(count: int) -> None:
    """Kept in ``threads``."""
    threads.append(count)


@contextmanager
def inference_mode() -> Iterator[None]:
    """As it is."""
    yield


class cuda:  # noqa: N801 - as in PyTorch
    """The GPU that there is not, unless a test has one."""

    available = False

    @classmethod
    def is_available(cls) -> bool:
        return cls.available


class _Means:
    """``told``: what a file says of itself, see :func:`save_means`."""

    def __init__(self, told: Mapping[str, Any], place: str) -> None:
        self._told = told
        self._place = place

    def eval(self) -> _Means:
        return self

    def __call__(self, pictures: Tensor) -> Any:
        values, told = pictures.values, self._told
        if pictures.place != self._place:
            raise RuntimeError("Input type and weight type should be the same")
        if values.dtype != np.float32 or not values.flags.c_contiguous:
            raise RuntimeError(f"expected contiguous float32, found {values.dtype}")
        if told["batch"] not in (0, len(values)):
            raise RuntimeError(
                "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript:\n"
                f"RuntimeError: shape '[{told['batch']}, -1]' is invalid"
            )
        scores = Tensor(values.mean(axis=(2, 3)), pictures.place)
        ways = {"tuple": (scores, pictures), "mapping": {"logits": scores}, "tensor": scores, "nothing": ()}
        return ways[told["gives"]]


class jit:  # noqa: N801 - as in PyTorch
    """Networks in files."""

    @staticmethod
    def load(path: str, map_location: str) -> _Means:
        with zipfile.ZipFile(path) as archive:
            return _Means(json.loads(archive.read("net/data.pkl")), map_location)


def save_means(path: Path, *, gives: str = "tuple", batch: int = 0) -> Path:
    """Write a file that is TorchScript by what lies in it.

    ``gives``: the network answers with a tuple, a mapping, a tensor, or nothing; ``batch``: the only one that it takes.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("net/constants.pkl", "net/code/__torch__.py", "net/version"):
            archive.writestr(name, b"")
        archive.writestr("net/data.pkl", json.dumps({"gives": gives, "batch": batch}))
    return path
