from __future__ import annotations

from random import Random

import pytest

from streamproc.simulate.tampering import overwritten
from streamproc.sources.nal import NalCodec, annex_b, kind_of
from streamproc.types import AccessUnit

START = b"\x00\x00\x00\x01"
SETS: dict[NalCodec, bytes] = {
    "h264": START + b"\x67" + b"\x42" * 40 + START + b"\x68" + b"\xce" * 9,
    "hevc": START + b"\x42\x01" + b"\x42" * 40,
}
SLICE: dict[NalCodec, bytes] = {"h264": START + b"\x65" + b"\x80" * 500, "hevc": START + b"\x26\x01" + b"\x80" * 500}


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_only_what_is_coded_is_overwritten(codec: NalCodec) -> None:
    data = SETS[codec] + SLICE[codec]
    unit = AccessUnit(data=data, codec=codec, pts_s=3.0, keyframe=True, captured_utc_ns=7)
    for seed in range(50):
        damaged = overwritten(unit, Random(seed))
        assert len(damaged.data) == len(data)
        assert damaged.data.startswith(SETS[codec])
        changed = sum(one != other for one, other in zip(data, damaged.data, strict=True))
        assert 1 <= changed <= 11
        kinds = [[kind_of(codec, nal) for nal in annex_b(each)] for each in (data, damaged.data)]
        assert kinds[0] == kinds[1]
        assert (damaged.pts_s, damaged.keyframe, damaged.captured_utc_ns) == (3.0, True, 7)
