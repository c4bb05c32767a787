"""``streamproc models build`` where there is no model file: Python functions, and other models in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from streamproc.cli.terminal import EXIT_BAD_CONFIG, fail, out

if TYPE_CHECKING:
    from streamproc.repository.options import BuildOptions

__all__ = ["Scripted", "build_scripted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """What the command line says in place of a model file: ``module:function`` with its tensors, or a file that says
    which models follow one another: steps, or a configuration of cameras."""

    python: str | None
    inputs: str | None
    outputs: str | None
    ensemble: Path | None

    @property
    def is_wanted(self) -> bool:
        """Whether it says any of this."""
        return any(value is not None for value in (self.python, self.inputs, self.outputs, self.ensemble))

    @property
    def backend(self) -> Literal["python", "ensemble"] | None:
        """What runs it; None if that is for the model file to say."""
        if self.python is not None:
            return "python"
        return None if self.ensemble is None else "ensemble"


def build_scripted(wanted: Scripted, options: BuildOptions, *, misplaced: Mapping[str, Path | None]) -> None:
    """Build a served model from a function, or from other models, and say so.

    ``misplaced``: what has no place beside either, by its name on the command line.

    Raises:
        StreamprocError: what the builder complains of.
    """
    _check(wanted, misplaced)
    if wanted.ensemble is not None:
        from streamproc.config.ensemble import is_ensemble
        from streamproc.repository.from_cascade import build_cascade
        from streamproc.repository.from_ensemble import build_ensemble

        builder = build_ensemble if is_ensemble(wanted.ensemble) else build_cascade
        built = builder(wanted.ensemble, options)
    else:
        from streamproc.repository.from_python import build_python
        from streamproc.repository.tensors import parse_tensors

        assert wanted.python is not None
        inputs, outputs = (
            parse_tensors(text or "", key=key) for key, text in (("inputs", wanted.inputs), ("outputs", wanted.outputs))
        )
        built = build_python(wanted.python, inputs, outputs, options)
    out.print(str(built), markup=False, highlight=False, soft_wrap=True)


def _check(wanted: Scripted, misplaced: Mapping[str, Path | None]) -> None:
    """One of the two, with all that it needs and nothing else."""
    specs = [spec is not None for spec in (wanted.inputs, wanted.outputs)]
    if specs != [wanted.python is not None] * 2:
        fail("--inputs and --outputs: expected both with --python, and only then", EXIT_BAD_CONFIG)
    ways = {"--python": wanted.python, "--ensemble": wanted.ensemble}
    given = [name for name, value in {**misplaced, **ways}.items() if value is not None]
    if len(given) != 1 or given[0] not in ways:
        found = " and ".join(given) or "none of them"
        fail(f"models build: found {found}; expected one of MODEL, --python and --ensemble alone", EXIT_BAD_CONFIG)
