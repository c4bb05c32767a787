"""Triton's own server out of the nvidia-pytriton wheel, in a virtual environment of its own.

The wheel holds ``tritonserver`` and its Python backend, for x86-64. What its Python models import must come with
numpy 1: with numpy 2 every tensor arrives empty. So none of it can live in the environment of streamproc.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from streamproc.errors import DependencyError
from streamproc.triton_server.folders import cache_folder
from streamproc.triton_server.programs import Progress, ignore, run

__all__ = ["REQUIREMENTS", "WheelEnvironment", "wheel_environment"]

REQUIREMENTS = (
    "nvidia-pytriton==0.7.0",
    "numpy==1.26.4",
    "openvino==2026.4.1",
    "onnxruntime==1.31.1",
    "opencv-python-headless==4.11.0.86",  # for cascades; later ones want numpy 2
)
"""The versions that were tested together."""

_MINORS = (11, 12)  # the wheel's stubs end at 3.13, the builds of numpy 1 at 3.12
_GLIBC = (2, 35)
_MARKER = "complete"
_LOCK_CHECK_S = 0.5
_INSTALL_TIMEOUT_S = 1800.0

# Run by the interpreter in question. Its own libpython comes first on the stub's library path: another one would look
# for the standard library elsewhere.
_PROBE = """
import importlib.util, json, os, sys, sysconfig
library = "libpython%d.%d.so.1.0" % sys.version_info[:2]
known = sysconfig.get_config_var("LIBDIR") or ""
multiarch = sysconfig.get_config_var("MULTIARCH") or ""
folders = (known, os.path.join(known, multiarch), os.path.join(sys.base_prefix, "lib"))
print(json.dumps({
    "minor": sys.version_info[1],
    "prefix": sys.base_prefix,
    "libraries": next((folder for folder in folders if os.path.exists(os.path.join(folder, library))), None),
    "venv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelEnvironment:
    """A finished environment: tritonserver's path, its backend directory, and the variables to start it with."""

    program: str
    backends: Path
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interpreter:
    program: str
    minor: int
    prefix: str
    libraries: str


async def wheel_environment(*, on_progress: Progress = ignore) -> WheelEnvironment:
    """The environment in the user's cache directory, made on first use: some 150 MB to fetch, 620 MB on disk.

    Raises:
        DependencyError: this machine cannot run the wheel, or the packages cannot be had.
    """
    _check_machine()
    python = await _find_interpreter()
    digest = hashlib.sha256("\n".join((*REQUIREMENTS, python.prefix)).encode()).hexdigest()[:8]
    folder = cache_folder() / "triton" / f"{REQUIREMENTS[0].partition('==')[2]}-py3.{python.minor}-{digest}"
    if not (folder / _MARKER).exists():
        async with _locked(folder.with_name(folder.name + ".lock"), on_progress):
            if not (folder / _MARKER).exists():
                await _build(folder, python, on_progress)
    packages = _packages(folder, python)
    libraries = [str(packages / "nvidia_pytriton.libs"), python.libraries, os.environ.get("LD_LIBRARY_PATH", "")]
    return WheelEnvironment(
        program=str(packages / "pytriton/tritonserver/bin/tritonserver"),
        backends=folder / "backends",
        # The stubs take `python3` on PATH as theirs, and so its packages; they ignore PYTHONHOME and PYTHONPATH.
        variables={
            "PATH": f"{folder / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        },
    )


def _check_machine() -> None:
    machine, (libc, version) = platform.machine(), platform.libc_ver()
    if machine != "x86_64":
        raise DependencyError(f"the wheel's server is built for x86-64; this is {machine}. Use NVIDIA's container.")
    if libc != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < _GLIBC:
        raise DependencyError(
            f"the wheel's server needs glibc {_GLIBC[0]}.{_GLIBC[1]} or newer; this system has "
            f"{libc or 'another C library'} {version}. Use NVIDIA's container."
        )


async def _find_interpreter() -> _Interpreter:
    """This one, or the newest suitable one on PATH."""
    minors = sorted(_MINORS, key=lambda minor: (minor == sys.version_info.minor, minor), reverse=True)
    refusal = ""
    for minor in minors:
        program = sys.executable if minor == sys.version_info.minor else shutil.which(f"python3.{minor}")
        if program is None:
            continue
        probed = await run(program, "-c", _PROBE, timeout_s=30)
        if probed.code != 0:
            refusal = refusal or f"{program} does not run: {probed.tail(2)}"
            continue
        found = json.loads(probed.output)
        if not found["venv"]:
            refusal = refusal or (
                f"{program} has no venv module with pip. Install it: apt-get install python3.{minor}-venv"
            )
        elif found["libraries"] is None:
            refusal = refusal or (
                f"libpython3.{minor}.so.1.0 of {program} is missing. Install it: apt-get install libpython3.{minor}"
            )
        else:
            return _Interpreter(program=program, minor=minor, prefix=found["prefix"], libraries=found["libraries"])
    wanted = " or ".join(f"3.{minor}" for minor in _MINORS)
    raise DependencyError(
        refusal
        or f"the wheel's server runs its models in Python {wanted}, and this is {platform.python_version()}. "
        f"Install python3.{_MINORS[-1]} beside it, or use NVIDIA's container."
    )


@asynccontextmanager
async def _locked(path: Path, on_progress: Progress) -> AsyncIterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    on_progress("another process is setting up the Triton server; waiting for it")
                    told = True
                await asyncio.sleep(_LOCK_CHECK_S)
        yield


async def _build(folder: Path, python: _Interpreter, on_progress: Progress) -> None:
    """In place, as an environment cannot be moved; the marker, written last, makes it valid."""
    on_progress(f"setting up the Triton server in {folder} (once; 620 MB)")
    shutil.rmtree(folder, ignore_errors=True)
    await _call("the virtual environment cannot be made", python.program, "-m", "venv", str(folder))
    pip = (str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install")
    await _call(
        "the server's packages cannot be installed",
        *pip, "--progress-bar", "off", *REQUIREMENTS,
        on_progress=lambda line: on_progress(line) if line.startswith(("Downloading", "Installing")) else None,
    )  # fmt: skip
    server = _packages(folder, python) / "pytriton/tritonserver"
    backend = folder / "backends/python"
    shutil.copytree(server / "backends/python", backend, ignore=shutil.ignore_patterns("__pycache__"))
    stub = "triton_python_backend_stub"
    shutil.copy(server / f"python_backend_stubs/3.{python.minor}" / stub, backend / stub)
    (backend / stub).chmod(0o755)
    (folder / _MARKER).write_text("\n".join(REQUIREMENTS) + "\n")


async def _call(what: str, *command: str, on_progress: Progress = ignore) -> None:
    done = await run(*command, timeout_s=_INSTALL_TIMEOUT_S, on_progress=on_progress)
    if done.code != 0:
        raise DependencyError(
            f"{what} (exit code {done.code}):\n{done.tail()}\nCheck the network and the free space, then try again."
        )


def _packages(folder: Path, python: _Interpreter) -> Path:
    return folder / "lib" / f"python3.{python.minor}" / "site-packages"
