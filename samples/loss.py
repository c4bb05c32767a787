"""Task-aligned assignment (Feng et al. 2021, TOOD) and the training loss: CIoU (Zheng et al. 2020) and BCE."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Assignment", "Targets", "assign", "ciou", "loss"]

_TOP = 10
_SCORE_POWER, _OVERLAP_POWER = 0.5, 6.0  # alpha and beta of TOOD as the YOLO family uses them
_BOX_GAIN, _CLASS_GAIN = 7.5, 0.5
_MIN_REACH_PX = 6.0  # a box narrower than a cell may hold no cell centre: widen its search area, not the box


@dataclass(frozen=True, slots=True)
class Targets:
    """Truth of one picture: boxes (G, 4) xyxy in pixels, classes (G,) and which rows are to be found (G,).

    The other rows are neither demanded nor counted as background.
    """

    boxes: Tensor
    classes: Tensor
    wanted: Tensor


@dataclass(frozen=True, slots=True)
class Assignment:
    """Of one picture's N cells: which ones have an object, their boxes, and target and weight of every class score."""

    taken: Tensor  # (N,) bool
    boxes: Tensor  # (taken, 4)
    strength: Tensor  # (taken,) the target score of the object's own class
    scores: Tensor  # (N, C)
    weights: Tensor  # (N, C)


def ciou(left: Tensor, right: Tensor, complete: bool = True) -> Tensor:
    """(Complete) intersection over union of boxes that broadcast against each other in all but the last axis."""
    low, high = torch.maximum(left[..., :2], right[..., :2]), torch.minimum(left[..., 2:], right[..., 2:])
    shared = (high - low).clamp(0).prod(-1)
    size_left, size_right = left[..., 2:] - left[..., :2], right[..., 2:] - right[..., :2]
    plain = shared / (size_left.prod(-1) + size_right.prod(-1) - shared + 1e-7)
    if not complete:
        return plain
    hull = torch.maximum(left[..., 2:], right[..., 2:]) - torch.minimum(left[..., :2], right[..., :2])
    apart = (left[..., :2] + left[..., 2:] - right[..., :2] - right[..., 2:]).pow(2).sum(-1) / 4
    angles = [torch.atan(size[..., 0] / (size[..., 1] + 1e-7)) for size in (size_left, size_right)]
    aspect = 4 / math.pi**2 * (angles[0] - angles[1]).pow(2)
    with torch.no_grad():
        weight = aspect / (1 - plain + aspect + 1e-7)
    return plain - apart / (hull.pow(2).sum(-1) + 1e-7) - weight * aspect


def _holds(boxes: Tensor, centres: Tensor, shrink: float = 1.0) -> Tensor:
    """Which cell centres (N, 2) lie in which boxes (G, 4) shrunk around their centre: (G, N)."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = ((boxes[:, 2:] - boxes[:, :2]) / 2 * shrink).clamp(min=_MIN_REACH_PX)
    return ((centres - middle[:, None]).abs() < reach[:, None]).all(-1)


@torch.no_grad()
def assign(boxes: Tensor, scores: Tensor, centres: Tensor, targets: Targets) -> Assignment:
    """Gives every object of a picture the cells that place and class it best; boxes (N, 4), scores (N, C)."""
    weights, goals = torch.ones_like(scores), torch.zeros_like(scores)
    for kind, hidden in zip(targets.classes[~targets.wanted], targets.boxes[~targets.wanted], strict=True):
        weights[_holds(hidden[None], centres, shrink=0.6)[0], kind] = 0
    truth, kinds = targets.boxes[targets.wanted], targets.classes[targets.wanted]
    if not len(truth):
        return Assignment(torch.zeros_like(centres[:, 0], dtype=torch.bool), truth, truth[:, 0], goals, weights)
    overlap = ciou(truth[:, None], boxes[None], complete=False)
    inside = _holds(truth, centres)
    aligned = scores[:, kinds].T.pow(_SCORE_POWER) * overlap.pow(_OVERLAP_POWER) * inside
    best = torch.zeros_like(inside).scatter_(1, (aligned + 1e-12 * inside).topk(_TOP, 1).indices, True) & inside
    # A cell claimed by several objects goes to the one it overlaps most.
    row = ((overlap + 1) * best).argmax(0)
    best &= row == torch.arange(len(truth), device=row.device)[:, None]
    aligned = aligned * best
    strength = aligned / (aligned.amax(1, keepdim=True) + 1e-9) * (overlap * best).amax(1, keepdim=True)
    taken = best.any(0)
    mine = row[taken]
    goals[taken, kinds[mine]] = strength.amax(0)[taken]
    weights[taken] = 1
    return Assignment(taken, truth[mine], strength.amax(0)[taken], goals, weights)


def loss(boxes: Tensor, logits: Tensor, centres: Tensor, targets: Sequence[Targets]) -> tuple[Tensor, Tensor]:
    """Box and class loss of a batch, both already weighted; boxes (B, N, 4), logits (B, N, C)."""
    scores = logits.detach().sigmoid()
    found = [
        assign(where, what, centres, truth) for where, what, truth in zip(boxes.detach(), scores, targets, strict=True)
    ]
    taken = torch.stack([one.taken for one in found])
    goals, weights = (torch.stack([getattr(one, name) for one in found]) for name in ("scores", "weights"))
    strength, truth_boxes = (torch.cat([getattr(one, name) for one in found]) for name in ("strength", "boxes"))
    total = strength.sum().clamp(min=1)
    class_loss = functional.binary_cross_entropy_with_logits(logits, goals, weights, reduction="sum") / total
    box_loss = ((1 - ciou(boxes[taken], truth_boxes)) * strength).sum() / total
    return _BOX_GAIN * box_loss, _CLASS_GAIN * class_loss
