"""A model file for an engine in this process: ``streamproc models build --output``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from streamproc.errors import ConfigError, ModelError, Problem
from streamproc.labels import resolve_labels
from streamproc.repository.dependencies import needing_onnx
from streamproc.repository.options import BuildOptions, check_options

__all__ = ["WrittenModel", "write_int8"]

_SUITED = {
    "repository",
    "backend",
    "replace",
    "size",
    "precision",
    "calibration",
    "calibration_pictures",
    "labels",
    "head",
    "pixels",
    "fit",
    "verify",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenModel:
    """What was written: ``path`` is what model.path takes, with a .bin file beside it."""

    path: Path
    head: str
    size: tuple[int, int]
    calibrated_on: str
    verified: tuple[str, ...]

    def __str__(self) -> str:
        width, height = self.size
        lines = [f"{self.path}: {self.head}, int8, {width}x{height}, calibrated on {self.calibrated_on}"]
        lines += [f"compared with the source: {line}" for line in self.verified]
        lines.append(f"use it with engine: {{kind: openvino}} and model: {{path: {self.path}}}")
        return "\n".join(lines)


def write_int8(source: Path, output: Path, options: BuildOptions) -> WrittenModel:
    """Quantise an ONNX file for OpenVINO; nothing is written before it is verified.

    Raises:
        ConfigError: options that are for served models only, or that contradict each other.
        DependencyError: ONNX, ONNX Runtime, OpenVINO or NNCF is not installed.
        ModelError: the source does not suit, or the result differs from it or cannot be written.
    """
    _check(output, options)
    with needing_onnx("models build"):
        from streamproc.repository.fusing import fuse, verify
        from streamproc.repository.source import read_source
    labels = resolve_labels(options.labels)
    found = read_source(
        source,
        name=source.stem,
        size=options.size,
        labels=labels,
        kind=options.head,
        pixels=options.pixels,
        fit=options.fit,
    )
    fused = fuse(found, options)
    verified = verify(found, fused, options)
    assert fused.openvino is not None  # as backend and precision ask for it
    assert fused.calibrated_on is not None
    try:
        fused.openvino.write(output)
    except OSError as exc:
        raise ModelError(f"{output} cannot be written: {exc}. Check the space and the rights there.") from exc
    return WrittenModel(
        path=output,
        head=found.head.name,
        size=found.intake.size,
        calibrated_on=fused.calibrated_on,
        verified=tuple(map(str, verified)),
    )


def _check(output: Path, options: BuildOptions) -> None:
    check_options(options)
    problems = [
        Problem(
            key=field.name,
            found=str(getattr(options, field.name)),
            expected="it for a model in a repository only",
            remedy="Leave it out, or leave output out.",
        )
        for field in fields(options)
        if field.name not in _SUITED and getattr(options, field.name) != field.default
    ]
    if options.precision != "int8":
        remedy = "Add --precision int8 and --calibration, or leave output out: the engine reads ONNX files themselves."
        problems.append(Problem(key="precision", found=options.precision, expected="int8 with output", remedy=remedy))
    if options.backend != "openvino":
        remedy = "Leave the backend out, or leave output out."
        problems.append(Problem(key="backend", found=options.backend, expected="openvino with output", remedy=remedy))
    if output.suffix != ".xml":
        remedy = "Call it NAME.xml; NAME.bin is written beside it."
        problems.append(Problem(key="output", found=str(output), expected="an .xml file", remedy=remedy))
    if not options.replace and (output.exists() or output.with_suffix(".bin").exists()):
        remedy = "Choose another name, or add --replace."
        problems.append(Problem(key="output", found=f"{output}, which exists", expected="a new file", remedy=remedy))
    if problems:
        raise ConfigError("models build", problems)
