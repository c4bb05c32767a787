from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.sources.opening import Acceleration, HardwareChoice, opened, with_login
from tests.media import write_video


@given(username=st.text(min_size=1), password=st.text())
def test_a_login_survives_the_url(username: str, password: str) -> None:
    url = with_login("rtsp://old:login@10.0.0.5:554/live?x=a@b", username, password)
    parts = urlsplit(url)
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (username, password)
    assert (parts.hostname, parts.port, parts.path, parts.query) == ("10.0.0.5", 554, "/live", "x=a@b")


@pytest.mark.parametrize("url", ["rtsp://a:b@[fd00::5]/live", "rtsps://camera"])
def test_without_a_user_name_a_url_stays_as_it_is(url: str) -> None:
    assert with_login(url, "", "") == url


@pytest.mark.parametrize("tail", ["", "/", "?stream=1", "?mail=a@b", "/live?path=/a@b"])
def test_a_login_goes_before_the_host_whatever_follows_it(tail: str) -> None:
    assert with_login(f"rtsp://[fd00::5]:554{tail}", "me", "it") == f"rtsp://me:it@[fd00::5]:554{tail}"


@pytest.mark.parametrize("wanted", ["auto", "cuda", "qsv"])
def test_without_a_device_it_is_software_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, wanted: Acceleration
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = write_video(tmp_path / "v.mp4", frames=3)
    hardware = HardwareChoice("gate", wanted)
    for _ in range(2):
        with opened("gate", str(path), {}, timeouts_s=(5.0, 5.0), hardware=hardware) as (container, stream):
            assert len(list(container.decode(stream))) == 3
    assert caplog.text.count(f"camera gate: hwaccel: {wanted}") == 1


def test_nothing_is_said_where_no_hardware_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    assert HardwareChoice("gate", "none").device() is None
    assert caplog.text == ""
