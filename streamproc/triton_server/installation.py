"""Which Triton there is on this machine, and how its program is called."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from streamproc.errors import DependencyError
from streamproc.triton_server.programs import NOT_FOUND, Finished, Progress, ignore, run
from streamproc.triton_server.wheel import wheel_environment

__all__ = ["DEFAULT_IMAGE", "Installation", "ServerChoice", "find_server"]

ServerChoice: TypeAlias = Literal["auto", "path", "docker", "wheel"]

DEFAULT_IMAGE = "nvcr.io/nvidia/tritonserver:26.06-py3"
_CONTAINER_PROGRAM = Path("/opt/tritonserver/bin/tritonserver")  # where NVIDIA's image has it, within a container
_PROBE_TIMEOUT_S = 30.0
_PULL_TIMEOUT_S = 3600.0  # the image is some 10 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A Triton that can be started.

    ``program`` is tritonserver's path, for docker the path within the container. ``environment`` is added to the
    process's own. ``backends`` is the backend directory where it is not the server's default. ``image`` and ``gpus``
    (the container may use the NVIDIA ones) are for docker. ``options`` are the command-line options that this server
    knows, with their dashes. ``why`` says which was taken and why the others were not.
    """

    kind: Literal["path", "docker", "wheel"]
    program: str
    options: frozenset[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    backends: Path | None = None
    image: str | None = None
    gpus: bool = False
    why: str = ""


async def find_server(
    choice: ServerChoice = "auto", *, image: str = DEFAULT_IMAGE, on_progress: Progress = ignore
) -> Installation:
    """Find a Triton: ``path`` (tritonserver on PATH or in /opt), ``docker`` (``image``, pulled if need be), or
    ``wheel`` (the server of the nvidia-pytriton package, set up on first use).

    ``auto`` tries them in this order; it takes docker only with the image at hand, as it is 10 GB to fetch.

    Raises:
        DependencyError: what was asked for is not to be had here; the message says why and the remedy.
    """
    if not sys.platform.startswith("linux"):
        raise DependencyError(f"Triton runs on Linux; this is {sys.platform}. Use a Triton on another machine.")
    if choice == "path":
        return await _on_path()
    if choice == "docker":
        return await _in_docker(image, on_progress, pull=True)
    if choice == "wheel":
        return await _from_wheel(on_progress)
    refusals = []
    try:
        return await _on_path()
    except DependencyError as exc:
        refusals.append(f"path: {exc}")
    try:
        found = await _in_docker(image, on_progress, pull=False)
        return replace(found, why="\n".join([found.why, *refusals]))
    except DependencyError as exc:
        refusals.append(f"docker: {exc}")
    try:
        found = await _from_wheel(on_progress)
        return replace(found, why="\n".join([found.why, *refusals]))
    except DependencyError as exc:
        raise DependencyError("\n".join(["no Triton can be started here.", *refusals, f"wheel: {exc}"])) from exc


async def _on_path() -> Installation:
    program = shutil.which("tritonserver")
    if program is None and os.access(_CONTAINER_PROGRAM, os.X_OK):
        program = str(_CONTAINER_PROGRAM)
    if program is None:
        raise DependencyError(
            f"tritonserver is neither on PATH nor at {_CONTAINER_PROGRAM}. Install it, run within NVIDIA's Triton "
            "image, or use the server from docker or from the wheel."
        )
    probed = await run(program, "--help", timeout_s=_PROBE_TIMEOUT_S)
    return Installation(kind="path", program=program, options=_options(program, probed), why=f"path: {program}")


async def _in_docker(image: str, on_progress: Progress, *, pull: bool) -> Installation:
    gpus = _has_nvidia_runtime(
        await run("docker", "info", "--format", "{{json .Runtimes}}", timeout_s=_PROBE_TIMEOUT_S)
    )
    if (await run("docker", "image", "inspect", image, timeout_s=_PROBE_TIMEOUT_S)).code != 0:
        if not pull:
            raise DependencyError(f"the image {image} is not on this machine. Fetch it with: docker pull {image}")
        on_progress(f"fetching {image} (10 GB or so)")
        pulled = await run("docker", "pull", image, timeout_s=_PULL_TIMEOUT_S, on_progress=on_progress)
        if pulled.code != 0:
            raise DependencyError(
                f"the image {image} cannot be fetched: {pulled.tail(3)}\nCheck its name and the network."
            )
    call = ("docker", "run", "--rm", "--network", "none", image, "tritonserver", "--help")
    options = _options(image, await run(*call, timeout_s=_PROBE_TIMEOUT_S))
    return Installation(
        kind="docker",
        program="tritonserver",
        options=options,
        image=image,
        gpus=gpus,
        why=f"docker: {image}",
    )


def _has_nvidia_runtime(probed: Finished) -> bool:
    """Read what ``docker info`` tells of the engine's runtimes; there may be warnings around it."""
    remedy = "Install docker, start its engine, and be allowed to use it (group docker)."
    if probed.code == NOT_FOUND:
        raise DependencyError(f"docker is not installed. {remedy}")
    runtimes = [line for line in probed.output.splitlines() if line.startswith("{")]
    if probed.code != 0 or not runtimes:
        raise DependencyError(f"docker has no working engine: {probed.tail(1)} {remedy}")
    return "nvidia" in json.loads(runtimes[0])


async def _from_wheel(on_progress: Progress) -> Installation:
    made = await wheel_environment(on_progress=on_progress)
    probed = await run(
        "env", *(f"{key}={value}" for key, value in made.variables.items()), made.program, "--help",
        timeout_s=_PROBE_TIMEOUT_S,
    )  # fmt: skip
    return Installation(
        kind="wheel",
        program=made.program,
        options=_options(made.program, probed),
        environment=made.variables,
        backends=made.backends,
        why=f"wheel: {made.program}",
    )


def _options(program: str, probed: Finished) -> frozenset[str]:
    """The options in a usage text; some releases exit with 1 after printing it."""
    options = frozenset(re.findall(r"^\s*(--[a-z][a-z0-9-]*)", probed.output, re.MULTILINE))
    if "--model-repository" not in options:
        raise DependencyError(
            f"{program} does not run (exit code {probed.code}): {probed.tail(3)}\nInstall it again, with its libraries."
        )
    return options
