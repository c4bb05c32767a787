"""Cascades that a repository holds: what one does, and which other models a served model calls."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from streamproc.errors import ModelError
from streamproc.repository.config_pbtxt import parameters_of, steps_of
from streamproc.serving.plan import PLAN_PARAMETER, TASK, Plan

__all__ = ["STEP_PARAMETER", "models_called", "outline", "plan_of_config"]

STEP_PARAMETER = "step"
"""In the configuration of a Python model of a cascade: which part of it that is, ``whole`` or a step of an ensemble."""


def plan_of_config(config: Any) -> Plan | None:
    """The cascade that a served model is, by its configuration; None for every other model.

    Raises:
        ModelError: it is one, but what it says of itself cannot be read.
    """
    parameters = parameters_of(config)
    if parameters.get("task") != TASK:
        return None
    try:
        return Plan.from_json(parameters[PLAN_PARAMETER])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
        raise ModelError(
            f"model {config.name}: its parameter {PLAN_PARAMETER} does not tell what this cascade does ({exc!r}): it "
            "is damaged, or of another version of streamproc. Build it again: streamproc models build --ensemble "
            "cameras.yaml."
        ) from exc


def models_called(config: Any) -> frozenset[str]:
    """The models without which a served model cannot work: an ensemble's steps, and those of a cascade."""
    called = {step.model for step in steps_of(config)}
    with suppress(ModelError):
        plan = plan_of_config(config)
        called |= {model.info.name for model in plan.models} if plan is not None else set()
    return frozenset(called)


def outline(plan: Plan) -> str:
    """A cascade for people.

    ``yolov8n, plates (mnet_plate) on detector, text (lprnet) on plates``
    """
    parts = [f"{model.name} ({model.info.name}) on {model.on}" for model in plan.secondaries]
    return ", ".join([plan.detector.info.name, *parts])
