"""Inference by NVIDIA Triton servers."""

from streamproc.engines.triton.engine import TritonEngine

__all__ = ["TritonEngine"]
