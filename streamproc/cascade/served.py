"""A cascade on a server, held against what is configured: whether it gives that, and how its answers are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from streamproc.cascade.answers import AnswerReader
from streamproc.config import CameraConfig, Config, ModelConfig, SecondaryConfig
from streamproc.config.refusals import KeyPath, dotted, show
from streamproc.engines.base import ModelInfo
from streamproc.errors import ConfigError, ModelError, Problem
from streamproc.labels import resolve_labels
from streamproc.models.spec import Head, recognise
from streamproc.secondary import CropReader, check_links, reader_of
from streamproc.serving.plan import PLAN_PARAMETER, ModelPlan, Plan, served_name

__all__ = ["BUILD_IT", "ServedCascade", "cascade_model", "read_cascade"]

BUILD_IT: Final = "Build it from this configuration: streamproc models build --ensemble cameras.yaml -r REPOSITORY."
_REBUILD: Final = (
    "Correct it, or build the cascade again: streamproc models build --ensemble cameras.yaml -r REPOSITORY."
)
_SHOWN = 5  # of the classes of a model, of which there may be hundreds


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedCascade:
    """How to read a served cascade: ``head`` is of its detector, ``readers`` of the models on what that finds, and
    ``answers`` takes its answers apart."""

    head: Head
    readers: Mapping[str, CropReader]
    answers: AnswerReader


def cascade_model(detector: ModelConfig) -> ModelConfig:
    """The served cascade as a model that an engine can open."""
    own = {"name": served_name(detector.name), "version": None, "size": None, "pixels": None}
    return detector.model_copy(update=own)


def read_cascade(config: Config, info: ModelInfo) -> ServedCascade:
    """How to read the cascade that an engine has opened.

    Raises:
        ModelError: it is no cascade, or one of another version of streamproc.
        ConfigError: it was built for something else than is configured.
    """
    plan = _plan_of(info)
    source = f"model {info.name}"
    if problems := list(_differences(config, plan)):
        raise ConfigError(source, problems)
    head = recognise(plan.detector.info, resolve_labels(config.model.labels), kind=config.model.head)
    readers = {name: reader_of(name, plan.model(name).info, model) for name, model in config.models.items()}
    if problems := list(_other_readings(head, readers, plan)):
        raise ConfigError(source, problems)
    check_links(config, head, readers)
    answers = AnswerReader(plan, {name: reader.thresholds for name, reader in readers.items()})
    return ServedCascade(head=head, readers=readers, answers=answers)


def _plan_of(info: ModelInfo) -> Plan:
    """What a cascade was built for, as it says itself.

    Raises:
        ModelError: it does not, or its tensors say otherwise.
    """
    told = info.metadata.get(PLAN_PARAMETER)
    if told is None:
        raise ModelError(
            f"model {info.name}: its configuration on the server has no parameter {PLAN_PARAMETER}, by which a cascade "
            f"of streamproc says what it does. {BUILD_IT}"
        )
    try:
        plan = Plan.from_json(told)
        expected = {tensor.name: (tensor.dtype, (1, *tensor.shape)) for tensor in plan.outputs()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
        raise ModelError(
            f"model {info.name}: what its parameter {PLAN_PARAMETER} says of it cannot be read ({exc!r}): it is "
            f"damaged, or of another version of streamproc. {BUILD_IT}"
        ) from exc
    actual = {tensor.name: (tensor.dtype, tensor.shape) for tensor in info.outputs}
    for name in expected.keys() | actual.keys():
        if expected.get(name) != actual.get(name):
            raise ModelError(
                f"model {info.name}: its output {name} is {_tensor(actual.get(name))}; expected "
                f"{_tensor(expected.get(name))}, by what its parameter {PLAN_PARAMETER} says. {BUILD_IT}"
            )
    return plan


def _tensor(of: tuple[str, tuple[int, ...]] | None) -> str:
    return "none" if of is None else f"{of[0]} {of[1]}"


def _differences(config: Config, plan: Plan) -> Iterator[Problem]:
    """What is configured and the cascade cannot give; less than it gives can be had of it."""
    yield from _same_model(("model",), config.model, plan.detector)
    yield from _within(("model",), config.model, plan.detector)
    for name, camera in config.cameras.items():
        yield from _within(("cameras", name), camera, plan.detector)
    built = {model.name: model for model in plan.secondaries}
    for name, model in config.models.items():
        if name in built:
            yield from _of_secondary(name, model, built[name])
        else:
            expected = f"{' or '.join(built) or 'no further model'}, which is all that the served cascade has"
            yield Problem(key=dotted(("models", name)), found="a model", expected=expected, remedy=_REBUILD)


def _of_secondary(name: str, model: SecondaryConfig, built: ModelPlan) -> Iterator[Problem]:
    key = ("models", name)
    yield from _same_model(key, model, built)
    if model.on != built.on:
        yield _problem((*key, "on"), model.on, show(built.on))
    if built.classes is not None and not set(model.classes or ("",)) <= set(built.classes):
        yield _problem((*key, "classes"), model.classes, f"some of {_words(built.classes)}")
    if built.finds:
        yield from _within(key, model, built)
    crop = model.crop
    if crop.expand != built.crop_expand:
        yield _problem((*key, "crop", "expand"), crop.expand, show(built.crop_expand))
    if crop.straighten != built.crop_straighten:
        yield _problem((*key, "crop", "straighten"), crop.straighten, show(built.crop_straighten))
    if crop.min_size < built.crop_min_size:
        yield _problem((*key, "crop", "min_size"), crop.min_size, f"{built.crop_min_size:g} or more")


def _same_model(key: tuple[str, ...], model: ModelConfig, built: ModelPlan) -> Iterator[Problem]:
    """It is the same model, and sees pictures as configured."""
    info = built.info
    if model.name != info.name:
        yield _problem((*key, "name"), model.name, show(info.name))
    if model.version != built.version:
        yield _problem((*key, "version"), model.version, "none" if built.version is None else str(built.version))
    if model.size not in (None, info.size):
        yield _problem((*key, "size"), model.size, _words(info.size))
    if model.fit not in ("auto", info.fit):
        yield _problem((*key, "fit"), model.fit, info.fit)


def _within(key: tuple[str, ...], section: ModelConfig | CameraConfig, built: ModelPlan) -> Iterator[Problem]:
    """What counts as an object is among what the cascade gives; a camera's None means what the model's section says."""
    confidence, iou, most = section.confidence, section.iou, section.max_detections
    if confidence is not None and confidence < built.confidence:
        yield _problem((*key, "confidence"), confidence, f"{built.confidence:g} or more")
    if iou is not None and iou != built.iou:
        yield _problem((*key, "iou"), iou, f"{built.iou:g}")
    if most is not None and most > built.max_detections:
        yield _problem((*key, "max_detections"), most, f"{built.max_detections} or less")


def _other_readings(head: Head, readers: Mapping[str, CropReader], plan: Plan) -> Iterator[Problem]:
    """Where the server takes a model's outputs for something else than what is configured makes of them."""
    if head.labels != plan.detector.labels:
        yield _problem(("model", "labels"), head.labels, _words(plan.detector.labels))
    for name, reader in readers.items():
        built = plan.model(name)
        if isinstance(reader.head, Head) != built.finds:
            yield _problem(("models", name, "head"), reader.head.name, show(built.head))
        elif built.finds and reader.labels != built.labels:
            yield _problem(("models", name, "labels"), reader.labels, _words(built.labels))


def _problem(key: KeyPath, wanted: object, given: str) -> Problem:
    found = _words(wanted) if isinstance(wanted, tuple) else show(wanted)
    return Problem(key=dotted(key), found=found, expected=f"{given}, as the served cascade was built", remedy=_REBUILD)


def _words(items: Sequence[object]) -> str:
    """The first few of them, as in YAML."""
    return f"[{', '.join(map(str, items[:_SHOWN]))}{', ...' if len(items) > _SHOWN else ''}]"
