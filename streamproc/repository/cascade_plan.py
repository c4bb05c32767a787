"""From a configuration of cameras and the models of a repository to the plan of a cascade that a server runs.

What counts as an object in the server is what does for some camera: the least confidence and the most objects of the
model's section and the cameras'. Clients leave out for each camera what is beyond its own. Boxes are suppressed once,
so ``iou`` is one for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path

from streamproc.config import DETECTOR, CameraConfig, Config, ModelConfig, SecondaryConfig
from streamproc.config.refusals import dotted, show
from streamproc.engines.base import ModelInfo, TensorInfo
from streamproc.engines.intake import check_outputs, plan_intake, settle_pictures
from streamproc.errors import ConfigError, Problem
from streamproc.labels import resolve_labels
from streamproc.models.spec import Head, recognise
from streamproc.repository.config_pbtxt import CONFIG_FILE, parameters_of, read_config
from streamproc.repository.versions import ServedEntry, list_models
from streamproc.secondary import CropReader, check_links, reader_of
from streamproc.serving.plan import ModelPlan, Plan, tensor_of

__all__ = ["make_plan"]

_CORNERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A served model that a configuration names: ``max_batch`` pictures go into one call of it."""

    info: ModelInfo
    max_batch: int


def make_plan(config: Config, repository: Path, size: tuple[int, int], *, source: str) -> Plan:
    """The cascade of a configuration for pictures of up to ``size`` (width, height), of models in ``repository``.

    At most ``max_detections`` objects of a model are looked at further in one picture, the best ones: it holds for the
    whole picture, where the client applies it to each object that they are found in. Of models that find none,
    ``max_waiting`` crops are looked at, as the client lets no more wait.

    Raises:
        ConfigError: models that are not there, cannot be called, or do not fit together; ``source`` begins the message.
        ModelError: a model's outputs are none of a supported kind.
    """
    named: dict[str, ModelConfig] = {DETECTOR: config.model, **config.models}
    entries = {entry.name: entry for entry in list_models(repository)}
    problems = [problem for name, model in named.items() for problem in _wrong_model(name, model, entries, repository)]
    problems += [*_other_suppression(config)]
    if problems:
        raise ConfigError(source, problems)
    found = {name: _found(model, entries[model.name], repository) for name, model in named.items()}
    head = recognise(found[DETECTOR].info, resolve_labels(config.model.labels), kind=config.model.head)
    readers = {name: reader_of(name, found[name].info, model) for name, model in config.models.items()}
    check_links(config, head, readers)
    models = [_detector(config, found[DETECTOR], head)]
    most = {DETECTOR: models[0].most}
    for name in _in_order(config.models):
        plan = _secondary(name, config.models[name], found[name], readers[name])
        if not plan.finds:
            plan = replace(plan, most=min(plan.most, most[config.models[name].on]))  # a crop for each object
        most[name] = plan.most
        models.append(plan)
    whole = Plan(size=size, models=tuple(models))
    if problems := list(_ambiguous(whole)):
        raise ConfigError(source, problems)
    return whole


def _ambiguous(plan: Plan) -> Iterator[Problem]:
    """Models whose own outputs have names that the answer needs for something else."""
    names = Counter(tensor.name for tensor in plan.outputs())
    for model in plan.secondaries:
        clashing = [one.name for one in model.info.outputs if names[tensor_of(model, one.name)] > 1]
        if clashing:
            yield Problem(
                key=dotted(("models", model.name, "name")),
                found=f"{model.info.name}, which has outputs named {' and '.join(clashing)}",
                expected="other names: the answer has tensors of its own called so",
                remedy="Export the model with other names.",
            )


def _wrong_model(
    name: str, model: ModelConfig, entries: Mapping[str, ServedEntry], repository: Path
) -> Iterator[Problem]:
    """Why a server could not call a model, as the repository has it."""
    section = ("model",) if name == DETECTOR else ("models", name)
    key, entry = dotted((*section, "name")), entries.get(model.name)
    if entry is None:
        there = ", ".join(entries) or "none"
        head = "" if model.head in ("auto", "detector") else f" --head {model.head}"
        remedy = f"Build it first: streamproc models build {model.name}.onnx{head} -r {repository}."
        expected = f"a model of the repository {repository}, of which there are: {there}"
        yield Problem(key=key, found=show(model.name), expected=expected, remedy=remedy)
        return
    if entry.problem:
        remedy = "Mend it, or build it again."
        found = f"{model.name}, {entry.problem}"
        yield Problem(key=key, found=found, expected="a model that a server loads", remedy=remedy)
        return
    served = [version.number for version in entry.versions if version.served]
    if not served or model.version not in (None, *served):
        listed = ", ".join(map(str, served)) or "there is none"
        expected = f"a version of {model.name} that is served: {listed}"
        version = dotted((*section, "version"))
        yield Problem(
            key=version, found=show(model.version), expected=expected, remedy="Choose one, or serve that one."
        )
    yield from _wrong_tensors(key, entry)


def _wrong_tensors(key: str, entry: ServedEntry) -> Iterator[Problem]:
    """What of a model's tensors does not suit: a cascade gives it uint8 pictures, and answers in fixed shapes."""
    (tensor, *others) = entry.inputs
    if others or tensor.dtype != "uint8" or len(tensor.shape) != 4 or tensor.shape[3] != 3:
        yield Problem(
            key=key,
            found=f"{entry.name}, which takes {', '.join(map(_told, entry.inputs))}",
            expected="a model that takes one tensor of pictures, uint8 (batch, height, width, 3)",
            remedy="Build it with its intake fused (without --no-fuse-intake), or put a model in front that converts.",
        )
        return
    if tensor.shape[0] not in (1, -1):
        yield Problem(
            key=key,
            found=f"{entry.name}, which takes {tensor.shape[0]} pictures at a time",
            expected="a model that takes any number of them, or one",
            remedy="Export it with an open (dynamic) batch, and build it again.",
        )
    for output in entry.outputs:
        if min(output.shape[1:], default=1) < 0:
            yield Problem(
                key=key,
                found=f"{entry.name}, which gives {_told(output)}",
                expected="an output of a fixed shape, but for the batch",
                remedy=f"State its real dims in the model's {CONFIG_FILE}, or export the model with a fixed shape.",
            )


def _other_suppression(config: Config) -> Iterator[Problem]:
    for name, camera in config.cameras.items():
        if camera.iou not in (None, config.model.iou):
            yield Problem(
                key=dotted(("cameras", name, "iou")),
                found=show(camera.iou),
                expected=f"{config.model.iou:g}, which is model.iou: the server suppresses boxes for all cameras alike",
                remedy="Remove it, or leave the cascade to the client.",
            )


def _found(model: ModelConfig, entry: ServedEntry, repository: Path) -> _Found:
    """A model as an engine would see it."""
    # A map of protobuf has no order; a plan that is built again is to be the same text.
    parameters = dict(sorted(parameters_of(read_config(repository / entry.name / CONFIG_FILE)).items()))
    intake = plan_intake(model.name, entry.inputs, max_batch="auto", auto_batch=1, size=model.size)
    outputs = [replace(one, shape=(1, *one.shape[1:])) if one.shape[:1] == (-1,) else one for one in entry.outputs]
    check_outputs(model.name, outputs, 1)
    # What the model wants of its pixels, it has within.
    intake = settle_pictures(model.name, intake, outputs, pixels=None, fit=model.fit, metadata=parameters)
    info = ModelInfo(
        name=model.name,
        size=intake.size,
        inputs=entry.inputs,
        outputs=tuple(outputs),
        metadata=parameters,
        fit=intake.fit,
    )
    return _Found(info=info, max_batch=max(1, entry.max_batch))


def _detector(config: Config, found: _Found, head: Head) -> ModelPlan:
    model = config.model
    sections: tuple[ModelConfig | CameraConfig, ...] = (model, *config.cameras.values())
    most = max(section.max_detections for section in sections if section.max_detections is not None)
    return ModelPlan(
        name=DETECTOR,
        info=found.info,
        head=model.head,
        finds=True,
        most=most,
        max_batch=found.max_batch,
        version=model.version,
        labels=head.labels,
        keypoints=_keypoints(head),
        confidence=min(section.confidence for section in sections if section.confidence is not None),
        iou=model.iou,
        max_detections=most,
    )


def _secondary(name: str, model: SecondaryConfig, found: _Found, reader: CropReader) -> ModelPlan:
    finds = isinstance(reader.head, Head)
    return ModelPlan(
        name=name,
        info=found.info,
        head=model.head if finds else reader.head.name,
        finds=finds,
        most=model.max_detections if finds else model.max_waiting,
        max_batch=found.max_batch if model.max_batch == "auto" else min(model.max_batch, found.max_batch),
        on=model.on,
        version=model.version,
        labels=reader.labels,
        keypoints=_keypoints(reader.head) if isinstance(reader.head, Head) else 0,
        confidence=model.confidence,
        iou=model.iou,
        max_detections=model.max_detections,
        classes=model.classes,
        crop_expand=model.crop.expand,
        crop_min_size=model.crop.min_size,
        crop_straighten=model.crop.straighten,
    )


def _keypoints(head: Head) -> int:
    if head.pose is not None:
        return head.pose.keypoints
    return _CORNERS if head.decoder.has_corners else 0


def _in_order(models: Mapping[str, SecondaryConfig]) -> Iterator[str]:
    """Their names, each after the one that it stands on."""
    order = TopologicalSorter({name: [model.on] for name, model in models.items()}).static_order()
    return (name for name in order if name != DETECTOR)


def _told(tensor: TensorInfo) -> str:
    return f"{tensor.name} {tensor.dtype} {tensor.shape}"
