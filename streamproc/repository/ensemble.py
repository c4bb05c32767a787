"""Served models behind one another: whether they fit together, and what they are as one model.

A server finds out only when it loads the ensemble, and stops at the first thing that is wrong; here all of it is told,
before anything is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

from streamproc.config.ensemble import EnsembleConfig, StepConfig
from streamproc.engines.base import TensorInfo
from streamproc.errors import ConfigError, Problem
from streamproc.repository.versions import ServedEntry

__all__ = ["Ensemble", "join"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Models that fit together.

    ``inputs`` and ``outputs`` have the batch as their first dimension, where there is one. ``max_batch`` is the least
    of the models': 0 where one of them does not batch, and the batch is then a dimension like any other. ``notes`` are
    for people.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    max_batch: int
    steps: tuple[StepConfig, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """Where a step makes or reads a tensor: the file's key, the tensor's name there, and the model's own tensor."""

    key: str
    name: str
    tensor: TensorInfo

    def __str__(self) -> str:
        return f"{self.tensor.dtype} {_dims(self.tensor)}"


def join(wanted: EnsembleConfig, models: Mapping[str, ServedEntry], *, source: str = "ensemble") -> Ensemble:
    """The steps as one model; ``models`` are those of the repository, ``source`` begins messages.

    Raises:
        ConfigError: a model, version or tensor that is not there, an input that gets nothing, types or shapes that do
            not fit, a tensor that nobody uses, or steps that wait for each other; all of it at once.
    """
    problems = [problem for index, step in enumerate(wanted.steps) for problem in _wrong_step(index, step, models)]
    if problems:
        raise ConfigError(source, problems)  # what follows needs every model's tensors
    makes, reads = _ends(wanted, models)
    problems = [
        *_wrong_sources(wanted, makes, reads),
        *_unused(wanted, makes, reads),
        *_wrong_types(makes, reads),
        *_waiting(wanted),
    ]
    if problems:
        raise ConfigError(source, problems)
    makers = {end.name: end.tensor for end in makes}
    return Ensemble(
        inputs=tuple(_taken(name, [end.tensor for end in reads if end.name == name]) for name in wanted.inputs),
        outputs=tuple(replace(makers[name], name=name) for name in wanted.outputs),
        max_batch=min(models[step.model].max_batch for step in wanted.steps),
        steps=wanted.steps,
        notes=_notes(wanted),
    )


def _wrong_step(index: int, step: StepConfig, models: Mapping[str, ServedEntry]) -> Iterator[Problem]:
    key = f"steps[{index}]"
    model = models.get(step.model)
    if model is None:
        there = ", ".join(models) or "none"
        expected = f"a model of the repository, of which there are: {there}"
        yield _problem(f"{key}.model", step.model, expected, "Build it first, or correct the name.")
        return
    if model.problem:
        yield _problem(f"{key}.model", f"{step.model}, {model.problem}", "a model that a server loads", "Mend it.")
    served = [version.number for version in model.versions if version.served]
    if step.version is not None and step.version not in served:
        expected = f"a version of {step.model} that is served: {', '.join(map(str, served)) or 'there is none'}"
        yield _problem(f"{key}.version", str(step.version), expected, "Choose one, or serve that one.")
    for role, links, tensors in (("inputs", step.inputs, model.inputs), ("outputs", step.outputs, model.outputs)):
        names = [tensor.name for tensor in tensors]
        for name in links:
            if name not in names:
                expected = f"{role} of {step.model}: {', '.join(names)}"
                yield _problem(f"{key}.{role}.{name}", name, expected, "Correct the name.")
    for tensor in model.inputs:
        if tensor.name not in step.inputs:
            expected = f"a tensor for every input of {step.model}"
            yield _problem(f"{key}.inputs", f"nothing for {tensor.name}", expected, f"Add {tensor.name}: TENSOR.")


def _ends(wanted: EnsembleConfig, models: Mapping[str, ServedEntry]) -> tuple[list[_End], list[_End]]:
    """Where tensors are made, and where they are read."""

    def ends(role: str) -> list[_End]:
        return [
            _End(key=f"steps[{index}].{role}.{inner}", name=outer, tensor=_of(models[step.model], role, inner))
            for index, step in enumerate(wanted.steps)
            for inner, outer in getattr(step, role).items()
        ]

    return ends("outputs"), ends("inputs")


def _of(model: ServedEntry, role: str, name: str) -> TensorInfo:
    tensors: tuple[TensorInfo, ...] = getattr(model, role)
    return next(tensor for tensor in tensors if tensor.name == name)


def _wrong_sources(wanted: EnsembleConfig, makes: list[_End], reads: list[_End]) -> Iterator[Problem]:
    """Tensors from nowhere, or from several places."""
    made = sorted({end.name for end in makes})
    sources = Counter([*wanted.inputs, *(end.name for end in makes)])
    for name, count in sources.items():
        if count > 1:
            keys = [*(["inputs"] * wanted.inputs.count(name)), *(end.key for end in makes if end.name == name)]
            expected = f"each tensor from one place, not from {' and '.join(keys)}"
            yield _problem(keys[-1], name, expected, "Rename all but one.")
    for end in reads:
        if end.name not in sources:
            expected = f"a tensor that comes in or that a step makes: {', '.join(sorted(sources))}"
            yield _problem(end.key, end.name, expected, "Correct the name.")
    for name in wanted.outputs:
        if name not in made:
            yield _problem("outputs", name, f"tensors that a step makes: {', '.join(made)}", "Correct the name.")


def _unused(wanted: EnsembleConfig, makes: list[_End], reads: list[_End]) -> Iterator[Problem]:
    read = {end.name for end in reads}
    for name in wanted.inputs:
        if name not in read:
            yield _problem("inputs", name, "tensors that a step reads", "Leave it out, or feed it to a step.")
    for end in makes:
        if end.name not in read and end.name not in wanted.outputs:
            expected = "tensors that another step reads, or that are among the outputs"
            yield _problem(end.key, f"{end.name}, which nobody uses", expected, "Leave it out, or add it to outputs.")
    for name, count in Counter(wanted.outputs).items():
        if count > 1:
            yield _problem("outputs", f"{name} {count} times", "each tensor once", "Remove all but one.")


def _wrong_types(makes: list[_End], reads: list[_End]) -> Iterator[Problem]:
    """Every reader is held against whoever makes the tensor; readers of what comes in against one another."""
    for place, end in enumerate(reads):
        makers = [other for other in makes if other.name == end.name]
        others = makers or [other for other in reads[:place] if other.name == end.name]
        unlike = next((other for other in others if not _alike(other.tensor, end.tensor)), None)
        if unlike is not None:
            expected = f"{unlike}, which {unlike.key} {'makes' if makers else 'takes'} of it"
            yield _problem(end.key, f"{end.name} as {end}", expected, "Put a model between them that converts it.")


def _alike(one: TensorInfo, other: TensorInfo) -> bool:
    """Whether types agree, and shapes wherever neither is open."""
    if one.dtype != other.dtype or len(one.shape) != len(other.shape):
        return False
    return all(a == b or -1 in (a, b) for a, b in zip(one.shape, other.shape, strict=True))


def _waiting(wanted: EnsembleConfig) -> Iterator[Problem]:
    """Steps that can never begin, as each needs what another one of them makes."""
    makers = {name: index for index, step in enumerate(wanted.steps) for name in step.outputs.values()}
    needs = {
        index: {makers[name] for name in step.inputs.values() if name in makers}
        for index, step in enumerate(wanted.steps)
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as exc:
        round_trip = " -> ".join(f"steps[{index}]" for index in exc.args[1])
        expected = "steps that do not wait for each other"
        yield _problem("steps", round_trip, expected, "Let one of them read another tensor.")


def _notes(wanted: EnsembleConfig) -> tuple[str, ...]:
    """A warning of several steps that begin with the request.

    Triton 2.51 answers a failed step while its gRPC thread may still be starting the next one; each then holds the lock
    that the other waits for (EnsembleContext and ModelInferHandler), and the server answers nobody any more.
    """
    first = [
        f"steps[{index}]" for index, step in enumerate(wanted.steps) if {*step.inputs.values()} <= {*wanted.inputs}
    ]
    if len(first) < 2:
        return ()
    return (
        f"{' and '.join(first)} begin at once: Triton 2.51 can hang for good when one of them fails then. Let one read "
        "what another makes, or let their models never fail.",
    )


def _taken(name: str, readers: list[TensorInfo]) -> TensorInfo:
    """What a request has to bring: sizes that one reader leaves open are those of another."""
    sides = zip(*(reader.shape for reader in readers), strict=True)
    return TensorInfo(name=name, dtype=readers[0].dtype, shape=tuple(map(max, sides)))


def _dims(tensor: TensorInfo) -> str:
    return "x".join("?" if side < 0 else str(side) for side in tensor.shape)


def _problem(key: str, found: str, expected: str, remedy: str) -> Problem:
    return Problem(key=key, found=found, expected=expected, remedy=remedy)
