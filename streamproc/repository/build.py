"""From a model file to a model that a server can load: ``streamproc models build``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamproc.errors import ModelError
from streamproc.repository.config_pbtxt import (
    CONFIG_FILE,
    LABELS_FILE,
    ServedModel,
    backend_of,
    check_config,
    inputs_of_config,
    make_config,
    model_file,
    outputs_of_config,
    parameters_of,
    policy_of,
    read_config,
    render,
    steps_of,
)
from streamproc.repository.contents import Contents
from streamproc.repository.dependencies import needing_onnx
from streamproc.repository.from_plan import from_plan
from streamproc.repository.from_torchscript import TORCHSCRIPT_SUFFIXES, from_torchscript
from streamproc.repository.options import BuildOptions, InstanceKind, Made, check_options
from streamproc.repository.plans import PLAN_SUFFIXES
from streamproc.repository.policy import VersionPolicy
from streamproc.repository.staging import put_in_place, staging, write_whole
from streamproc.repository.versions import BUILD_FILE, versions_in

__all__ = ["BuiltModel", "build", "place"]

# Two instances overlap copies to and from a GPU with its work; on a CPU, ONNX Runtime and the OpenVINO backend use
# every core with one.
_GPU_INSTANCES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltModel:
    """What was built, and where.

    ``folder`` is the version's. ``served``: whether the version policy has a server load this version. ``verified``,
    ``notes`` and ``to_do`` are for people; ``to_do`` is None where a server can load the model as it is.
    """

    name: str
    version: int
    folder: Path
    backend: str
    head: str
    max_batch: int
    served: bool
    verified: tuple[str, ...]
    notes: tuple[str, ...]
    to_do: str | None

    @property
    def graph(self) -> Path:
        """The file that holds the network itself, whatever the backend loads."""
        names = ("model.xml", "model.onnx", "model.plan")
        return next((path for name in names if (path := self.folder / name).is_file()), self.folder)

    def __str__(self) -> str:
        batch = f"batches of up to {self.max_batch}" if self.max_batch else "no batching"
        lines = [f"{self.name} version {self.version}: {self.head}, {self.backend}, {batch}, in {self.folder}"]
        lines += [f"compared with the source: {line}" for line in self.verified]
        lines += [f"note: {line}" for line in self.notes]
        if not self.served:
            lines.append("note: the model's version policy does not serve this version")
        if self.to_do:
            lines.append(f"to do: {self.to_do}")
        return "\n".join(lines)


def build(source: Path, options: BuildOptions) -> BuiltModel:
    """Build a served model from an ONNX file, or around an existing TensorRT plan or TorchScript classifier.

    Everything is made and verified first, and appears in the repository at once; at an error nothing that was there
    has changed. config.pbtxt belongs to all versions of a model: it is written anew from the options, and a version
    with other tensors, batch or classes is refused. A model whose only version is replaced may change in everything.

    Raises:
        ConfigError: options that contradict each other.
        DependencyError: ONNX or ONNX Runtime is not installed.
        ModelError: the source, the repository, or how they fit.
    """
    made_from = _kind_of(source)
    named = replace(options, name=options.name or source.stem)
    check_options(named, made_from=made_from)
    return place(named, lambda name: _make(source, name, named, made_from))


def place(options: BuildOptions, make: Callable[[str], Contents]) -> BuiltModel:
    """Put into the repository what ``make`` makes, given the model's name, which ``options`` have.

    The same promises hold as for :func:`build`, whatever the model is made from.

    Raises:
        ModelError: the repository, or how the model fits into it; and whatever ``make`` raises.
    """
    name = options.name
    assert name is not None
    target = options.repository / name
    _choose_version(target, options)  # nothing is made that could not be written
    contents = make(name)
    with staging(options.repository) as scratch:
        version = _choose_version(target, options)
        others = [number for number in versions_in(target) if number != version]
        before = read_config(target / CONFIG_FILE) if others else None
        model = _served(name, contents, options, before)
        config = make_config(model, options)
        check_config(config, target / CONFIG_FILE)
        if before is not None:
            _check_same(before, config, name, version)
        _write(scratch, target, version, config, contents, whole=not others)
    return BuiltModel(
        name=name,
        version=version,
        folder=target / str(version),
        backend=options.backend,
        head=contents.kind,
        max_batch=contents.max_batch,
        served=version in model.policy.served([*others, version]),
        verified=contents.verified,
        notes=(*contents.notes, *_changed(before, config)),
        to_do=contents.to_do,
    )


def _kind_of(source: Path) -> Made:
    if source.suffix in TORCHSCRIPT_SUFFIXES:
        return "torchscript"
    return "plan" if source.suffix in PLAN_SUFFIXES else "graph"


def _make(source: Path, name: str, options: BuildOptions, made_from: Made) -> Contents:
    if made_from == "torchscript":
        return from_torchscript(source, name, options)
    if made_from == "plan":
        return from_plan(source, name, options)
    with needing_onnx("models build"):
        from streamproc.repository.from_onnx import from_onnx
    return from_onnx(source, name, options)


def _choose_version(target: Path, options: BuildOptions) -> int:
    if target.exists() and not (target / CONFIG_FILE).is_file():
        raise ModelError(f"{target}: this is no model's folder, as it has no {CONFIG_FILE}. Choose another name.")
    there = versions_in(target)
    version = options.version or max(there, default=0) + 1
    if version in there and not options.replace:
        raise ModelError(
            f"model {target.name}: version {version} is there already. Leave the version out for the next one "
            f"({max(there) + 1}), or ask to replace it."
        )
    return version


def _served(name: str, contents: Contents, options: BuildOptions, before: Any) -> ServedModel:
    kept = policy_of(before) if before is not None else VersionPolicy()
    instances, kind = _instances(options)
    return ServedModel(
        name=name,
        backend=options.backend,
        max_batch=contents.max_batch,
        inputs=contents.inputs,
        outputs=contents.outputs,
        instances=instances,
        instance_kind=kind,
        parameters=contents.parameters,
        policy=options.version_policy or kept,
        file=contents.file,
        steps=contents.steps,
        warm_up=contents.warm_up,
    )


def _instances(options: BuildOptions) -> tuple[int, InstanceKind]:
    """How many, and where. In the python backend each has one thread of its own, so as many as there are cores."""
    kinds: dict[str, InstanceKind] = {"tensorrt": "gpu", "openvino": "cpu", "python": "cpu"}
    kind = kinds.get(options.backend, "auto") if options.instance_kind == "auto" else options.instance_kind
    if options.instances is not None:
        return options.instances, kind
    if kind == "gpu":
        return _GPU_INSTANCES, kind
    cores = len(os.sched_getaffinity(0))
    return (max(1, cores // (options.threads or 1)) if options.backend == "python" else 1), kind


def _check_same(before: Any, config: Any, name: str, version: int) -> None:
    """A model's versions share one configuration, so what clients rely on must not change from one to the next."""
    old, new = _promises(before), _promises(config)
    for what in old:
        if old[what] != new[what]:
            raise ModelError(
                f"model {name}: version {version} would have other {what} than its other versions: {new[what]}; they "
                f"have {old[what]}. Give it another name, or replace its only version: all versions of a model share "
                "one configuration."
            )


def _promises(config: Any) -> dict[str, str]:
    parameters = parameters_of(config)
    suppression = {key: value for key, value in sorted(parameters.items()) if key.startswith("suppression.")}
    return {
        "backend": backend_of(config),
        "file": str(model_file(config)),
        "batch": str(config.max_batch_size),
        "inputs": ", ".join(f"{t.name} {t.dtype} {t.shape}" for t in inputs_of_config(config)),
        "outputs": ", ".join(f"{t.name} {t.dtype} {t.shape}" for t in outputs_of_config(config)),
        "steps": "; ".join(f"{s.model} {s.version} {s.inputs} {s.outputs}" for s in steps_of(config)) or "none",
        "suppression": str(suppression or "none"),
        "classes": parameters.get("names", "none"),
    }


def _changed(before: Any, config: Any) -> tuple[str, ...]:
    """Which parts of a configuration that was there the new one has changed, by hand or by other options."""
    if before is None:
        return ()
    fields = [field.name for field in config.DESCRIPTOR.fields]
    # Compared as text: maps have no order of their own.
    old, new = ({name: _part(one, name) for name in fields} for one in (before, config))
    changed = [name for name in fields if old[name] != new[name]]
    return (f"config.pbtxt was written anew; changed: {', '.join(changed)}",) if changed else ()


def _part(config: Any, field: str) -> str:
    part = type(config)()
    part.CopyFrom(config)
    for other in config.DESCRIPTOR.fields:
        if other.name != field:
            part.ClearField(other.name)
    return render(part)


def _write(scratch: Path, target: Path, version: int, config: Any, contents: Contents, *, whole: bool) -> None:
    """The whole model where it has no other version, else the version and then what belongs to all of them."""
    folder = scratch / target.name / str(version)
    try:
        folder.mkdir(parents=True)
        contents.write(folder, version)
        (folder / BUILD_FILE).write_text(json.dumps(dict(contents.origin), indent=2) + "\n", encoding="utf-8")
    except OSError as exc:
        raise ModelError(f"{folder} cannot be written: {exc}. Check the space and the rights there.") from exc
    home = folder.parent if whole else target
    if not whole:
        put_in_place(folder, target / str(version))
    if contents.labels:
        write_whole(home / LABELS_FILE, "".join(f"{label}\n" for label in contents.labels), scratch)
    write_whole(home / CONFIG_FILE, render(config), scratch)
    if whole:
        put_in_place(home, target)
