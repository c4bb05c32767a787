"""What a machine says of itself."""

from __future__ import annotations

from streamproc.bench.machine import processor


def test_the_processor_has_a_name_and_cores() -> None:
    name, cores = processor()
    assert name
    assert cores >= 1
