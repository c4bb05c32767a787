"""A cascade in a straight line as an ensemble: the models, and the Python steps in front, between and behind.

With a second model the ensemble takes one picture at a time and does not batch: how many crops there are is then a
dimension like any other, and the second model, which batches, gets as many rows at once; requests that come together
meet in its queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from streamproc.config.ensemble import EnsembleConfig, StepConfig
from streamproc.engines.base import TensorInfo
from streamproc.serving.plan import PICTURES, ModelPlan, Plan, served_name, tensor_of

__all__ = ["Role", "Step", "batched", "line_of", "steps_of_line"]

Role: TypeAlias = Literal["prepare", "cut", "answer"]

_PREPARED: Final = "prepared"
_CROPS: Final = "crops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A Python model of the line: ``prepare`` brings whole pictures to the detector's size, ``cut`` reads what that
    gives and cuts the crops, ``answer`` gives the tensors that are left.

    Its tensors are called in the ensemble as in the model; those of a model of the plan ``NAME/TENSOR``.
    """

    name: str
    role: Role
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    max_batch: int


def batched(tensor: TensorInfo, rows: int) -> TensorInfo:
    """The tensor of one item as that of a batch, -1 for an open one."""
    return replace(tensor, shape=(rows, *tensor.shape))


def steps_of_line(plan: Plan) -> tuple[Step, ...]:
    """The Python models that a straight line needs."""
    return tuple(_steps(plan))


def line_of(plan: Plan) -> EnsembleConfig:
    """The ensemble, with the steps under their names."""
    detector, second = plan.detector, next(iter(plan.secondaries), None)
    models = [_called(detector, _PREPARED), *([] if second is None else [_called(second, _CROPS)])]
    own = [
        StepConfig(
            model=step.name,
            inputs={tensor.name: tensor.name for tensor in step.inputs},
            outputs={tensor.name: tensor.name for tensor in step.outputs},
        )
        for step in steps_of_line(plan)
    ]
    # prepare, detector, cut, second model, answer; or prepare, detector, answer
    steps = [step for pair in zip(own, models, strict=False) for step in pair] + own[len(models) :]
    return EnsembleConfig(
        inputs=(PICTURES,), outputs=tuple(tensor.name for tensor in plan.outputs()), steps=tuple(steps)
    )


def _steps(plan: Plan) -> Iterator[Step]:
    detector, second = plan.detector, next(iter(plan.secondaries), None)
    max_batch = detector.max_batch if second is None and detector.info.inputs[0].shape[0] < 0 else 0
    rows = -1 if max_batch else 1

    def step(role: Role, inputs: list[TensorInfo], outputs: list[TensorInfo]) -> Step:
        name = f"{served_name(detector.info.name)}_{role}"
        return Step(name=name, role=role, inputs=tuple(inputs), outputs=tuple(outputs), max_batch=max_batch)

    pictures = batched(plan.pictures, rows)
    raw = [replace(tensor, shape=(rows, *tensor.shape[1:])) for tensor in _outputs(detector)]
    answer = [batched(tensor, rows) for tensor in plan.outputs()]
    yield step("prepare", [pictures], [_pixels(_PREPARED, detector.info.size, rows)])
    if second is None:
        yield step("answer", [pictures, *raw], answer)
        return
    own = {tensor_of(second, tensor.name) for tensor in second.info.outputs}
    told = [replace(tensor, shape=(-1, *tensor.shape[1:])) for tensor in _outputs(second)]
    known = [tensor for tensor in answer if tensor.name not in own]
    parent = next(tensor for tensor in known if tensor.name == tensor_of(second, "parent"))
    yield step("cut", [pictures, *raw], [*known, _pixels(_CROPS, second.info.size, -1)])
    yield step("answer", [parent, *told], [tensor for tensor in answer if tensor.name in own])


def _called(model: ModelPlan, pictures: str) -> StepConfig:
    """A model of the plan in the ensemble."""
    names = [tensor.name for tensor in model.info.outputs]
    return StepConfig(
        model=model.info.name,
        version=model.version,
        inputs={model.info.inputs[0].name: pictures},
        outputs={name: f"{model.name}/{name}" for name in names},
    )


def _outputs(model: ModelPlan) -> list[TensorInfo]:
    return [replace(tensor, name=f"{model.name}/{tensor.name}") for tensor in model.info.outputs]


def _pixels(name: str, size: tuple[int, int], rows: int) -> TensorInfo:
    width, height = size
    return TensorInfo(name=name, dtype="uint8", shape=(rows, height, width, 3))
