"""Segments are set aside at once, belong to their creator, and are found when it is dead."""

from __future__ import annotations

import _posixshmem  # type: ignore[import-not-found, unused-ignore]
import fcntl
import gc
import os
import select
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from streamproc.engines import shared_memory
from streamproc.engines.shared_memory import RegionError, SystemRegion, lay_out, page_aligned, sweep

PAGE = page_aligned(1)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A corner of /dev/shm where nobody else sweeps."""
    path = Path(tempfile.mkdtemp(prefix="test-", dir="/dev/shm"))
    monkeypatch.setattr(shared_memory, "_FOLDER", path)
    yield path
    shutil.rmtree(path)


@contextmanager
def process(folder: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process with a ``region`` of its own in ``folder``, then ``script``."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom streamproc.engines import shared_memory\n"
        f"shared_memory._FOLDER = Path({str(folder)!r})\nregion = shared_memory.SystemRegion.create(1 << 16)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", code + script], stdin=-1, stdout=-1, text=True)
    with running:
        try:
            yield running
        finally:
            running.kill()


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


WAIT = "print(region.name, flush=True)\nsys.stdin.read()\n"


def test_a_peer_sees_the_bytes_under_the_key() -> None:
    region = SystemRegion.create(3 * PAGE)
    values = region.array(PAGE, (2, 3), np.float32)
    values[:] = [[1, 2, 3], [4, 5, 6]]
    peer = _posixshmem.shm_open(region.key, os.O_RDWR)
    try:
        assert np.frombuffer(os.pread(peer, 24, PAGE), np.float32).tolist() == [1, 2, 3, 4, 5, 6]
        assert os.pread(peer, PAGE, 0) == bytes(PAGE)
    finally:
        os.close(peer)
        region.close()
    assert not Path("/dev/shm", region.name).exists()


def test_names_tell_the_process_and_are_never_the_same(folder: Path) -> None:
    regions = [SystemRegion.create(1) for _ in range(3)]
    assert len({region.name for region in regions}) == 3
    assert all(region.name.startswith(f"streamproc-{os.getpid()}-") for region in regions)
    assert all(region.key == f"/{region.name}" and region.size == PAGE for region in regions)
    assert sorted(os.listdir(folder)) == sorted(region.name for region in regions)
    for region in regions:
        region.close()
    assert os.listdir(folder) == []


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_permissions_are_exact_whatever_the_umask(folder: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        region = SystemRegion.create(1, mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / region.name).stat().st_mode) == mode
    region.close()


def test_the_memory_is_set_aside_at_creation(folder: Path) -> None:
    region = SystemRegion.create(1 << 20)
    assert (folder / region.name).stat().st_blocks * 512 == 1 << 20
    region.close()


def test_too_small_a_folder_is_an_error_with_sizes_and_remedy(folder: Path) -> None:
    mount = os.statvfs(folder)
    size = (mount.f_blocks + 1) * mount.f_frsize
    with pytest.raises(
        RegionError, match=r"too small: \d+\.\d MiB needed, .* MiB free.*--shm-size=\d+m.*remount"
    ) as exc:
        SystemRegion.create(size)
    assert f"{page_aligned(size) / (1 << 20):.1f} MiB needed" in str(exc.value)
    assert os.listdir(folder) == []


def test_a_missing_folder_is_an_error_and_has_nothing_to_sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path / "none")
    with pytest.raises(RegionError, match=r"none cannot be used for 1\.0 MiB: No such file.*shared_memory: none"):
        SystemRegion.create(1 << 20)
    assert sweep() == []


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_must_be_positive(size: int) -> None:
    with pytest.raises(ValueError, match=f"more than 0 bytes, got {size}"):
        SystemRegion.create(size)


def test_a_view_must_lie_within_an_open_region(folder: Path) -> None:
    region = SystemRegion.create(PAGE)
    assert region.array(PAGE - 4, (4,), np.uint8).shape == (4,)
    assert region.array(PAGE, (0, 3), np.float32).shape == (0, 3)
    with pytest.raises(ValueError, match=f"8 bytes at offset {PAGE - 4} do not lie within .* {PAGE} bytes"):
        region.array(PAGE - 4, (2,), np.float32)
    with pytest.raises(ValueError, match="at offset -4"):
        region.array(-4, (1,), np.float32)
    region.close()
    with pytest.raises(ValueError, match="closed"):
        region.array(0, (1,), np.uint8)


def test_views_outlive_the_region_and_take_the_mapping_with_them(folder: Path) -> None:
    files = len(os.listdir("/proc/self/fd"))
    region = SystemRegion.create(PAGE)
    name, view = region.name, region.array(0, (4,), np.uint8)[1:]
    region.close()
    region.close()
    assert os.listdir(folder) == []
    view[:] = 7
    assert view.tolist() == [7, 7, 7]
    assert name in Path("/proc/self/maps").read_text()
    del view
    assert name not in Path("/proc/self/maps").read_text()
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_forgotten_region_is_unlinked(folder: Path) -> None:
    region = SystemRegion.create(1)
    del region
    gc.collect()
    assert os.listdir(folder) == []


def test_only_the_dead_are_swept(folder: Path) -> None:
    own = SystemRegion.create(1)
    with process(folder, WAIT) as living, process(folder, WAIT) as killed:
        names = line(living), line(killed)
        assert sweep() == []
        killed.kill()
        killed.wait()
        assert (folder / names[1]).exists()
        assert sweep() == [names[1]]
        assert sorted(os.listdir(folder)) == sorted([own.name, names[0]])
        living.communicate()
        assert living.returncode == 0
    assert os.listdir(folder) == [own.name]  # a normal end unlinks, with no close()
    own.close()


def test_other_files_are_never_swept(folder: Path) -> None:
    region = "streamproc-1-0123456789abcdef"
    (folder / "streamproc-model").write_bytes(b"x")
    (folder / f"{region}-backup").write_bytes(b"x")
    (folder / region).symlink_to(folder / "streamproc-model")
    os.mkfifo(folder / "streamproc-2-0123456789abcdef")
    (folder / "streamproc-3-0123456789abcdef").mkdir()
    before = sorted(os.listdir(folder))
    assert sweep() == []
    assert sorted(os.listdir(folder)) == before


def test_a_forked_child_does_not_unlink(folder: Path) -> None:
    fork = (
        "child = os.fork()\nif not child:\n    {}\n    sys.exit(0)\n"
        "print(os.waitpid(child, 0)[1], (shared_memory._FOLDER / region.name).exists(), flush=True)\n"
    )
    for what in ("pass", "region.close()", "del region"):
        with process(folder, fork.format(what)) as running:
            assert running.communicate()[0] == "0 True\n"
    assert os.listdir(folder) == []


def test_a_forked_child_that_lives_on_keeps_the_segment(folder: Path) -> None:
    fork = "child = os.fork()\nif child:\n    print(child, flush=True)\nsys.stdin.read()\nos._exit(0)\n"
    with process(folder, fork) as running:
        child = os.pidfd_open(int(line(running)))
        running.kill()
        running.wait()
        (name,) = os.listdir(folder)
        assert sweep() == []
        assert running.stdin is not None
        running.stdin.close()
        select.select([child], [], [])
        os.close(child)
    assert sweep() == [name]


def test_a_sweep_between_creation_and_lock_costs_another_try(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[str] = []
    flock = fcntl.flock

    def late(file: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and not swept:
            swept.extend(sweep())
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    region = SystemRegion.create(1)
    assert len(swept) == 1
    assert os.listdir(folder) == [region.name] != swept
    assert sweep() == []
    region.close()


@pytest.mark.parametrize(("nbytes", "pages"), [(0, 0), (1, 1), (PAGE, 1), (PAGE + 1, 2)])
def test_page_alignment(nbytes: int, pages: int) -> None:
    assert page_aligned(nbytes) == pages * PAGE


def test_slots_and_their_parts_have_pages_of_their_own() -> None:
    layout = lay_out([PAGE + 1, 1, 2 * PAGE], slots=3)
    assert layout.offsets[0] == (0, 2 * PAGE, 3 * PAGE)
    assert layout.offsets[2] == (10 * PAGE, 12 * PAGE, 13 * PAGE)
    assert layout.size == 15 * PAGE


def test_orphans_are_ours_and_have_no_segment(folder: Path) -> None:
    region = SystemRegion.create(1)
    gone = f"streamproc-1-{'0' * 16}"
    assert shared_memory.orphans([region.name, gone, f"{gone}-cuda", "neighbour", ""]) == [gone]
    region.close()
