"""The cascade of a configuration of cameras as one served model: ``streamproc models build --ensemble cameras.yaml``.

A straight line becomes an ensemble of the models and of Python steps between them. Where models branch or nothing may
be found for the next one, a Python model calls them (Triton's business logic scripting, BLS), and leaves out what has
nothing to look at.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Final

from streamproc.config import Config, load_config
from streamproc.errors import ConfigError, Problem
from streamproc.repository.build import BuiltModel, place
from streamproc.repository.cascade_line import Step, batched, line_of, steps_of_line
from streamproc.repository.cascade_plan import make_plan
from streamproc.repository.cascades import STEP_PARAMETER, outline
from streamproc.repository.closure import copy_modules
from streamproc.repository.config_pbtxt import CONFIG_FILE, MODEL_FILES, instances_of, read_config
from streamproc.repository.contents import Contents, origin_of
from streamproc.repository.ensemble import join
from streamproc.repository.options import DEFAULT_BATCH, BuildOptions, check_options
from streamproc.repository.versions import list_models
from streamproc.serving.plan import PLAN_PARAMETER, TASK, Plan, served_name

__all__ = ["build_cascade"]

_DEFAULT_SIZE: Final = (1920, 1080)  # what most cameras give
_PLAN_FILE = "plan.json"
_MODULES = "modules"
_ENTRY = "streamproc.serving.graph"


def build_cascade(path: Path, options: BuildOptions) -> BuiltModel:
    """Build the served cascade of a configuration of cameras, whose models are in the repository already.

    ``options.size``, (width, height): pictures of cameras of up to that size are not scaled on their way. Its name
    follows from the detector's. A straight line has the batches of its models, and takes no options of its own.
    Otherwise, unless ``options`` say so, there are as many instances as the detector has and one more: an instance
    waits while the models that it calls work, and meanwhile another one prepares and reads (on two cores, cars, plates
    and texts: 17 pictures/s with one instance, 26 with three). They are where the detector is, since clients send
    batches to what is on a GPU; pixels are handled on the processor either way.

    Raises:
        ConfigError: the configuration, options that are of no use for a cascade, or models that do not suit.
        ModelError: the repository, or a model of no supported kind.
    """
    check_options(options, made_from="cascade")
    size = options.size or _DEFAULT_SIZE
    _check_size(size)
    config = load_config(path)
    _check_engine(config, path)
    plan = make_plan(config, options.repository, size, source=str(path))
    options = replace(options, name=served_name(plan.detector.info.name), size=None)
    if (reason := _why_no_line(plan)) is not None:
        return _build_whole(plan, path, options, reason)
    check_options(options, made_from="ensemble")
    for step in steps_of_line(plan):
        place(replace(options, name=step.name, backend="python", instances=1), partial(_step, plan, path, step))
    return place(options, lambda name: _line(plan, path, name, options))  # last: before, nobody calls the steps


def _check_size(size: tuple[int, int]) -> None:
    if any(side % 2 for side in size):
        width, height = size
        problem = Problem(
            key="size",
            found=f"{width}x{height}",
            expected="an even width and height: of colours, two pixels have one sample",
            remedy=f"Choose {width + width % 2}x{height + height % 2}.",
        )
        raise ConfigError("models build", [problem])


def _check_engine(config: Config, path: Path) -> None:
    if config.engine.kind != "triton":
        problem = Problem(
            key="engine.kind",
            found=config.engine.kind,
            expected="triton: the cascade of a configuration is built for its server",
            remedy="Write engine: {kind: triton}, and name the models as the repository does.",
        )
        raise ConfigError(str(path), [problem])


def _why_no_line(plan: Plan) -> str | None:
    """Why an ensemble cannot run a cascade; None where it can."""
    if not plan.is_straight:
        return "models branch, or have nothing to look at where another one finds nothing"
    for model in plan.secondaries:
        if model.most > model.max_batch:
            return (
                f"{model.name} is shown up to {model.most} crops of a picture, and {model.info.name} takes "
                f"{model.max_batch} at once; it would be an ensemble with models.{model.name}.max_waiting: "
                f"{model.max_batch}, or with {model.info.name} built with --max-batch {model.most}"
            )
    return None


def _build_whole(plan: Plan, path: Path, options: BuildOptions, reason: str) -> BuiltModel:
    """A Python model that calls the others; ``reason``: why it is no ensemble."""
    count, kind = instances_of(read_config(options.repository / plan.detector.info.name / CONFIG_FILE))
    options = replace(
        options,
        backend="python",
        instances=options.instances or count + 1,
        instance_kind=kind if options.instance_kind == "auto" else options.instance_kind,
        # A delay, though it be 0, asks for a queue: what comes together is looked at together.
        queue_delay_us=options.queue_delay_us or 0,
    )
    return place(options, lambda _: _whole(plan, path, options, reason))


def _whole(plan: Plan, path: Path, options: BuildOptions, reason: str) -> Contents:
    max_batch = DEFAULT_BATCH if options.max_batch is None else options.max_batch
    rows = -1 if max_batch else 1
    return Contents(
        kind="cascade that branches or ends early (BLS)",
        labels=plan.detector.labels,
        inputs=(batched(plan.pictures, rows),),
        outputs=tuple(batched(tensor, rows) for tensor in plan.outputs()),
        max_batch=max_batch,
        parameters=_parameters(plan) | {STEP_PARAMETER: "whole"},
        origin=origin_of(path),
        notes=(*_notes(plan), f"a Python model calls the models one by one, since {reason}"),
        warm_up=False,  # its models may be loaded after it
        write=partial(_write, plan),
    )


def _line(plan: Plan, path: Path, name: str, options: BuildOptions) -> Contents:
    models = {entry.name: entry for entry in list_models(options.repository) if entry.name != name}
    joined = join(line_of(plan), models, source=str(path))
    return Contents(
        kind="cascade in a straight line",
        labels=plan.detector.labels,
        inputs=joined.inputs,
        outputs=joined.outputs,
        max_batch=joined.max_batch,
        parameters=_parameters(plan),
        origin=origin_of(path),
        notes=(*_notes(plan), f"steps: {', '.join(step.model for step in joined.steps)}", *joined.notes),
        steps=joined.steps,
        warm_up=False,  # its models have been warmed up by themselves
        write=lambda _folder, _version: None,
    )


def _step(plan: Plan, path: Path, step: Step, _name: str) -> Contents:
    return Contents(
        kind="step of a cascade",
        labels=(),
        inputs=step.inputs,
        outputs=step.outputs,
        max_batch=step.max_batch,
        parameters={STEP_PARAMETER: step.role},
        origin=origin_of(path),
        warm_up=False,  # what it does first is as fast as what it does later
        write=partial(_write, plan),
    )


def _parameters(plan: Plan) -> dict[str, str]:
    """What clients are told of it."""
    return {"task": TASK, PLAN_PARAMETER: plan.to_json(), "names": str(dict(enumerate(plan.detector.labels)))}


def _notes(plan: Plan) -> tuple[str, ...]:
    width, height = plan.size
    return (
        f"{outline(plan)}; pictures of up to {width}x{height} are not scaled",
        "cameras use it with the key cascade: server",
    )


def _write(plan: Plan, folder: Path, _version: int) -> None:
    """The script, the plan, and the modules that work by it."""
    served = resources.files("streamproc.repository") / "served" / "cascade_model.py"
    (folder / MODEL_FILES["python"]).write_bytes(served.read_bytes())
    (folder / _PLAN_FILE).write_text(plan.to_json() + "\n", encoding="utf-8")
    copy_modules(_ENTRY, folder / _MODULES)
