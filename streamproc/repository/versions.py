"""What a repository holds, which of its versions are served, and back to an earlier one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from streamproc.engines.base import TensorInfo
from streamproc.errors import ModelError
from streamproc.repository.cascades import models_called
from streamproc.repository.config_pbtxt import (
    CONFIG_FILE,
    backend_of,
    check_config,
    inputs_of_config,
    model_file,
    outputs_of_config,
    policy_of,
    read_config,
    render,
    set_policy,
)
from streamproc.repository.policy import VersionPolicy
from streamproc.repository.staging import staging, write_whole

__all__ = [
    "BUILD_FILE",
    "ServedEntry",
    "ServedVersion",
    "list_models",
    "remove_version",
    "serve_versions",
    "versions_in",
]

BUILD_FILE = "build.json"
"""Beside a version's model: where it came from. Servers pay no heed to it."""

_VERSION = re.compile(r"[1-9][0-9]*")  # the server passes over names that begin with 0, or are no numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVersion:
    """One version of a model.

    ``size_bytes`` of all its files; ``served`` under the version policy; ``missing``: the file that the backend loads,
    where it is not there (a TensorRT plan that has yet to be built); ``origin``: source file, precision, ...
    """

    number: int
    size_bytes: int
    served: bool
    missing: str | None
    origin: Mapping[str, str]

    def __str__(self) -> str:
        state = f"no {self.missing} yet" if self.missing else "served" if self.served else "not served"
        origin = ", ".join(self.origin[key] for key in ("source", "precision") if key in self.origin)
        return f"{self.number} ({state}, {self.size_bytes / 1e6:.1f} MB{', ' + origin if origin else ''})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedEntry:
    """One model of a repository; ``problem`` says why a server would refuse it, None if nothing was found."""

    name: str
    backend: str
    max_batch: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    policy: VersionPolicy
    versions: tuple[ServedVersion, ...]
    problem: str | None

    def __str__(self) -> str:
        if self.problem:
            return f"{self.name}: {self.problem}"
        versions = ", ".join(map(str, self.versions)) or "none"
        return f"{self.name}: {self.backend}, batch {self.max_batch}, serves {self.policy}; versions: {versions}"


def list_models(repository: Path) -> tuple[ServedEntry, ...]:
    """Every model of a repository, by name; one that cannot be read is listed with its problem.

    Raises:
        ModelError: there is no such folder.
    """
    if not repository.is_dir():
        raise ModelError(f"model repository {repository}: there is no such folder. Build a model, or correct the path.")
    folders = sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))
    return tuple(_entry(folder) for folder in folders)


def serve_versions(repository: Path, name: str, policy: VersionPolicy) -> ServedEntry:
    """Change which versions of a model are served: forward, or back to an earlier one.

    A server that is told by request loads the model anew to follow; one that polls follows by itself.

    Raises:
        ModelError: no such model or version, the version is not complete, or the files cannot be written.
    """
    folder = _folder(repository, name)
    with staging(repository) as scratch:
        config = read_config(folder / CONFIG_FILE)
        _check_complete(name, folder, policy, model_file(config))
        set_policy(config, policy)
        write_whole(folder / CONFIG_FILE, render(config), scratch)
    return _entry(folder)


def remove_version(repository: Path, name: str, version: int) -> ServedEntry | None:
    """Delete one version; the last one takes the model with it (None). One that is served is not deleted.

    Raises:
        ModelError: no such model or version, it is served while there are others, or another model calls it.
    """
    folder = _folder(repository, name)
    with staging(repository) as scratch:
        there = versions_in(folder)
        if version not in there:
            listed = ", ".join(map(str, there)) or "none"
            raise ModelError(f"model {name}: it has no version {version}; there are {listed}. Choose one of these.")
        if len(there) > 1 and version in policy_of(read_config(folder / CONFIG_FILE)).served(there):
            raise ModelError(f"model {name}: version {version} is served. Serve another version first.")
        if len(there) == 1 and (users := _users_of(repository, name)):
            raise ModelError(f"model {name}: it is a step of {', '.join(users)}. Remove that first.")
        going = folder / str(version) if len(there) > 1 else folder
        try:
            going.rename(scratch / going.name)  # deleted with the staging folder
        except OSError as exc:
            raise ModelError(f"{going} cannot be removed: {exc}. Check the repository's rights.") from exc
    return _entry(folder) if len(there) > 1 else None


def versions_in(folder: Path) -> tuple[int, ...]:
    """The version numbers that a model's folder holds, ascending."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and _VERSION.fullmatch(path.name)))


def _check_complete(name: str, folder: Path, policy: VersionPolicy, file: str | None) -> None:
    """Whether a server can load what a policy names."""
    there = versions_in(folder)
    absent, served = sorted(set(policy.versions) - set(there)), policy.served(there)
    if absent or not served:
        raise ModelError(
            f"model {name}: it has no version {', '.join(map(str, absent)) or 'at all'}; there are "
            f"{', '.join(map(str, there)) or 'none'}. Choose one of these, or build it."
        )
    for version in served:
        if file and not (folder / str(version) / file).is_file():
            raise ModelError(f"model {name}: version {version} has no {file} yet. Build it first, or choose another.")


def _folder(repository: Path, name: str) -> Path:
    folder = repository / name
    if not (folder / CONFIG_FILE).is_file():
        names = ", ".join(entry.name for entry in list_models(repository)) or "none"
        raise ModelError(f"model repository {repository}: it has no model {name}; there are: {names}.")
    return folder


def _users_of(repository: Path, name: str) -> list[str]:
    """The names of ensembles and cascades that have the model as a step; files that cannot be read have none."""
    found = []
    for path in sorted(repository.glob(f"*/{CONFIG_FILE}")):
        with suppress(ModelError):
            if name in models_called(read_config(path)):
                found.append(path.parent.name)
    return found


def _entry(folder: Path) -> ServedEntry:
    """Never fails: what is wrong is in the entry."""
    try:
        config = read_config(folder / CONFIG_FILE)
    except ModelError as exc:
        return ServedEntry(
            name=folder.name,
            backend="unknown",
            max_batch=0,
            inputs=(),
            outputs=(),
            policy=VersionPolicy(),
            versions=(),
            problem=str(exc),
        )
    policy, numbers = policy_of(config), versions_in(folder)
    served, file = policy.served(numbers), model_file(config)
    versions = tuple(_version(folder / str(number), file, served=number in served) for number in numbers)
    problem = None if served else f"its policy serves {policy}, which is not there"
    absent = {model for model in models_called(config) if not (folder.parent / model / CONFIG_FILE).is_file()}
    if absent:
        problem = f"the repository has no {', '.join(sorted(absent))}, which is a step of it"
    try:
        check_config(config, folder / CONFIG_FILE)
    except ModelError as exc:
        problem = str(exc)
    return ServedEntry(
        name=folder.name,
        backend=backend_of(config),
        max_batch=config.max_batch_size,
        inputs=inputs_of_config(config),
        outputs=outputs_of_config(config),
        policy=policy,
        versions=versions,
        problem=problem,
    )


def _version(folder: Path, file: str | None, *, served: bool) -> ServedVersion:
    missing = file if file and not (folder / file).exists() else None
    return ServedVersion(
        number=int(folder.name),
        size_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        served=served and missing is None,
        missing=missing,
        origin=_origin(folder / BUILD_FILE),
    )


def _origin(path: Path) -> dict[str, str]:
    """What a build wrote about itself; nothing for versions that others have made."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in told.items()} if isinstance(told, dict) else {}
