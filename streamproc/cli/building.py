"""What ``streamproc models build`` does and prints, with a comparison of before and after for int8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from streamproc.cli.terminal import EXIT_BAD_CONFIG, fail, out

if TYPE_CHECKING:
    from streamproc.bench.before_after import BeforeAfter
    from streamproc.repository.options import BuildOptions

__all__ = ["build_and_compare"]


def build_and_compare(
    source: Path, output: Path | None, options: BuildOptions, *, labelled: Path | None, measure_s: float
) -> None:
    """Build the model and say so; in int8, hold its speed and accuracy against the source's.

    Raises:
        StreamprocError: what the builder, the engine or the labelled set complains of.
    """
    from streamproc.bench.before_after import compare_forms
    from streamproc.config import ModelConfig
    from streamproc.repository.accuracy import read_labelled

    if labelled is not None and (options.precision != "int8" or options.backend == "tensorrt" or options.suppresses):
        wanted = "it with precision int8, another backend than tensorrt, and no fused suppression"
        fail(f"--labelled: found {labelled}; expected {wanted}", EXIT_BAD_CONFIG)
    truth = None if labelled is None else read_labelled(labelled)  # before the long work
    built = _build(source, output, options)
    if options.precision != "int8" or options.backend == "tensorrt" or not (measure_s or truth):
        return
    given: dict[str, Any] = {"labels": options.labels, "head": options.head, "fit": options.fit}
    size = options.size if built.suffix == ".onnx" else None
    compared = compare_forms(
        ModelConfig(path=source, size=options.size, pixels=options.pixels, **given),
        ModelConfig(path=built, size=size, **given),  # which has the pixels within
        kind="openvino" if options.runs_openvino else "onnxruntime",
        labelled=truth,
        seconds=measure_s,
    )
    out.print(_table(compared))


def _build(source: Path, output: Path | None, options: BuildOptions) -> Path:
    """Build, print what was built, and give the file that holds the network."""
    if output is None:
        from streamproc.repository.build import build

        built = build(source, options)
        out.print(str(built), markup=False, highlight=False, soft_wrap=True)
        return built.graph
    from streamproc.repository.in_process import write_int8

    written = write_int8(source, output, options)
    out.print(str(written), markup=False, highlight=False, soft_wrap=True)
    return written.path


def _table(compared: BeforeAfter) -> Table:
    before, after = compared.before, compared.after
    table = Table()
    for heading in ("", f"before ({before.precision})", f"after ({after.precision})", ""):
        table.add_column(heading, justify="right")
    if compared.speedup is not None:
        speeds = (f"{form.images_per_s:.1f}" for form in (before, after))
        table.add_row("pictures/s", *speeds, f"x {compared.speedup:.2f}")
    if before.accuracy is not None and after.accuracy is not None:
        for name, old, new in (
            ("mAP50-95", before.accuracy.map50_95, after.accuracy.map50_95),
            ("mAP50", before.accuracy.map50, after.accuracy.map50),
        ):
            table.add_row(name, f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}")
        table.caption = f"accuracy on {after.accuracy.pictures} labelled pictures"
    return table
