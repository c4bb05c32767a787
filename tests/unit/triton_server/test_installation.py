"""Which server is taken, and what is said where there is none."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamproc.errors import DependencyError
from streamproc.triton_server import wheel
from streamproc.triton_server.installation import DEFAULT_IMAGE, find_server

ROOT = Path(__file__).resolve().parents[3]
USAGE = "printf 'Usage: tritonserver [options]\\n  --model-repository <string>\\n  --allow-client-shm <boolean>\\n'"

Put = Callable[[str, str], Path]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Writes a shell script as a program on a PATH that has little else."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("STREAMPROC_CACHE", str(tmp_path / "cache"))

    def write(name: str, script: str) -> Path:
        path = programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


DOCKER = f"""
case "$1 $2" in
  "info --format") echo 'WARNING: no swap limit'; echo '{{"nvidia":{{}},"runc":{{}}}}' ;;
  "image inspect") test -e "$0.image" ;;
  "pull "*) echo "pulling $2"; touch "$0.image" ;;
  "run --rm") {USAGE} ;;
  *) exit 99 ;;
esac
"""


async def test_on_the_path(put: Put) -> None:
    program = put("tritonserver", USAGE + "; exit 1")
    found = await find_server("path")
    assert (found.kind, found.program) == ("path", str(program))
    assert found.options == {"--model-repository", "--allow-client-shm"}
    assert await find_server("auto") == found


async def test_a_program_that_does_not_run(put: Put) -> None:
    put("tritonserver", "echo 'error while loading shared libraries: libb64.so'; exit 127")
    with pytest.raises(DependencyError, match=r"does not run \(exit code 127\): error while loading.*libb64"):
        await find_server("path")


async def test_docker_fetches_its_image_when_asked_for(put: Put) -> None:
    put("docker", DOCKER)
    told: list[str] = []
    found = await find_server("docker", on_progress=told.append)
    assert (found.kind, found.image, found.gpus) == ("docker", DEFAULT_IMAGE, True)
    assert "--allow-client-shm" in found.options
    assert told[-1] == f"pulling {DEFAULT_IMAGE}"
    again: list[str] = []
    assert await find_server("docker", on_progress=again.append) == found
    assert again == []


async def test_auto_takes_docker_with_the_image_at_hand(put: Put) -> None:
    put("docker.image", "")
    put("docker", DOCKER)
    found = await find_server("auto", image="triton:mine")
    assert (found.kind, found.image) == ("docker", "triton:mine")
    assert "path: tritonserver is neither on PATH" in found.why


async def test_auto_says_why_there_is_none(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put("docker", DOCKER)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(DependencyError) as caught:
        await find_server("auto")
    said = str(caught.value).splitlines()
    assert said[0] == "no Triton can be started here."
    assert said[1].startswith("path: tritonserver is neither")
    assert said[2] == (
        f"docker: the image {DEFAULT_IMAGE} is not on this machine. Fetch it with: docker pull {DEFAULT_IMAGE}"
    )
    assert said[3] == ("wheel: the wheel's server is built for x86-64; this is aarch64. Use NVIDIA's container.")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo null; echo 'Cannot connect to the Docker daemon.'; exit 1", "no working engine: Cannot connect"),
        ('echo "permission denied"; exit 1', "no working engine: permission denied"),
        (DOCKER.replace("touch", "exit 3;"), f"the image {DEFAULT_IMAGE} cannot be fetched: pulling"),
    ],
)
async def test_docker_that_does_not_work(put: Put, script: str, said: str) -> None:
    put("docker", script)
    with pytest.raises(DependencyError, match=said):
        await find_server("docker")


async def test_no_docker(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DependencyError, match="docker is not installed"):
        await find_server("docker")


async def test_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(DependencyError, match="Triton runs on Linux; this is darwin"):
        await find_server("auto")


async def test_an_old_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    with pytest.raises(DependencyError, match=r"needs glibc 2\.35 or newer; this system has glibc 2\.31"):
        await find_server("wheel")


def interpreter(put: Put, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Make a script the running Python, which is asked about itself first and then to make the environment."""
    monkeypatch.setattr(wheel, "_MINORS", (sys.version_info.minor,))
    script = f"case \"$1\" in -c) echo '{answer}' ;; *) echo 'no space left'; exit 1 ;; esac"
    monkeypatch.setattr(sys, "executable", str(put("python-of-the-test", script)))


@pytest.mark.parametrize(
    ("venv", "libraries", "said"),
    [
        ("false", "null", rf"no venv module with pip.*apt-get install python3\.{sys.version_info.minor}-venv"),
        ("true", "null", rf"is missing\. Install it: apt-get install libpython3\.{sys.version_info.minor}"),
        ("true", '"/lib"', r"(?s)virtual environment cannot be made \(exit code 1\):\nno space left\nCheck the"),
    ],
)
async def test_a_python_that_lacks_something(
    put: Put, monkeypatch: pytest.MonkeyPatch, venv: str, libraries: str, said: str
) -> None:
    answer = f'{{"minor": {sys.version_info.minor}, "prefix": "/usr", "venv": {venv}, "libraries": {libraries}}}'
    interpreter(put, monkeypatch, answer)
    with pytest.raises(DependencyError, match=said):
        await find_server("wheel")


MAKES_AN_ENVIRONMENT = f"""
case "$1 $2" in
  "-c "*) echo '{{"minor": {sys.version_info.minor}, "prefix": "/usr", "venv": true, "libraries": "/usr/lib/of-it"}}' ;;
  "-m venv") test ! -e "$3" && mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip")
    echo "Collecting something"; echo "Installing collected packages: all of it"
    echo "$@" >>"$(dirname "$0")/../installed"
    cd "$(dirname "$0")/.." && site=lib/python3.{sys.version_info.minor}/site-packages
    server=$site/pytriton/tritonserver; stub=python_backend_stubs/3.{sys.version_info.minor}
    mkdir -p $server/bin $server/backends/python $server/$stub
    touch $server/backends/python/libtriton_python.so $server/$stub/triton_python_backend_stub
    printf '#!/bin/sh\\n%s\\n' '{USAGE.replace("'", '"')}' >$server/bin/tritonserver
    chmod +x $server/bin/tritonserver ;;
esac
"""


async def test_the_wheel_is_set_up_once(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "_MINORS", (sys.version_info.minor,))
    monkeypatch.setattr(sys, "executable", str(put("python-of-the-test", MAKES_AN_ENVIRONMENT)))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/already/there")
    told: list[str] = []
    found, same = await asyncio.gather(*(find_server("wheel", on_progress=told.append) for _ in range(2)))
    assert found == same == await find_server("wheel", on_progress=told.append)
    assert found.backends is not None
    folder = found.backends.parent
    assert folder.is_relative_to(tmp_path / "cache/triton")
    assert told == [
        f"setting up the Triton server in {folder} (once; 620 MB)",
        "another process is setting up the Triton server; waiting for it",
        "Installing collected packages: all of it",
    ]
    (installed,) = read_lines(folder / "installed")
    assert installed.endswith(" ".join(("install", "--progress-bar", "off", *wheel.REQUIREMENTS)))
    assert os.access(found.backends / "python/triton_python_backend_stub", os.X_OK)
    libraries = found.environment["LD_LIBRARY_PATH"].split(":")
    assert [libraries[0].rpartition("/")[2], *libraries[1:]] == [
        "nvidia_pytriton.libs",
        "/usr/lib/of-it",
        "/already/there",
    ]
    assert found.environment["PATH"].startswith(f"{folder}/bin:")


async def test_half_an_environment_is_made_again(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "_MINORS", (sys.version_info.minor,))
    monkeypatch.setattr(sys, "executable", str(put("python-of-the-test", MAKES_AN_ENVIRONMENT)))
    found = await find_server("wheel")
    assert found.backends is not None
    (found.backends.parent / "complete").unlink()
    (found.backends / "python/libtriton_python.so").unlink()
    assert await find_server("wheel") == found
    assert (found.backends / "python/libtriton_python.so").exists()


def read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


async def test_a_python_without_a_stub(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "_MINORS", (2, 3))
    with pytest.raises(DependencyError, match=r"runs its models in Python 3\.2 or 3\.3, and this is 3\."):
        await find_server("wheel")


def test_the_wheel_runs_the_tested_versions() -> None:
    tested = set((ROOT / "constraints.txt").read_text().split())
    assert {line for line in wheel.REQUIREMENTS if line.startswith(("openvino", "onnxruntime"))} <= tested
