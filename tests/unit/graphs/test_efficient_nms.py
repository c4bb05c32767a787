"""The plugin node for TensorRT: its structure, and the graph around it with an equal of the plugin in its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from streamproc.graphs.suppression import DETECTIONS, Layout, add_efficient_nms
from tests.detecting import obvious_nms
from tests.unit.graphs.crowds import assert_same, crowd, decoded, passing_through, wanted

layouts = pytest.mark.parametrize("layout", ["raw", "objectness"])


def with_plugin(layout: Layout, limit: int = 20) -> onnx.ModelProto:
    model = passing_through(layout)
    add_efficient_nms(model, output="out", layout=layout, suppression=wanted(max_detections=limit))
    onnx.checker.check_model(model)
    return model


def test_the_node_is_as_the_plugin_wants_it() -> None:
    model = with_plugin("raw")
    (node,) = (node for node in model.graph.node if node.op_type == "EfficientNMS_TRT")
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert attributes.pop("score_threshold") == np.nextafter(np.float32(0.25), np.float32(0))
    assert attributes.pop("iou_threshold") == np.float32(0.45)
    assert attributes == {
        "plugin_version": b"1",
        "background_class": -1,
        "max_output_boxes": 20,
        "score_activation": 0,
        "box_coding": 0,
        "class_agnostic": 0,
    }
    assert (len(node.input), len(node.output)) == (2, 4)
    assert node.domain in {entry.domain for entry in model.opset_import}


@layouts
def test_it_gives_one_tensor_of_the_same_shape(layout: Layout) -> None:
    (output,) = with_plugin(layout).graph.output
    sides = [side.dim_value or side.dim_param for side in output.type.tensor_type.shape.dim]
    assert (output.name, sides) == (DETECTIONS, ["batch", 20, 6])


class EfficientNMS_TRT(OpRun):  # noqa: N801  (the evaluator goes by the operator's name)
    """What the plugin's documentation says, slowly; rows that it does not use hold what no memory should."""

    op_domain = "TRT"

    def _run(  # type: ignore[no-untyped-def]  # the evaluator's signature
        self, boxes, scores, *, score_threshold=0.0, iou_threshold=0.0, max_output_boxes=0, **_: Any
    ) -> tuple[NDArray[Any], ...]:
        batch = len(boxes)
        counts = np.zeros((batch, 1), dtype=np.int32)
        found_boxes = np.full((batch, max_output_boxes, 4), np.nan, dtype=np.float32)
        found_scores = np.full((batch, max_output_boxes), np.nan, dtype=np.float32)
        found_classes = np.full((batch, max_output_boxes), -7, dtype=np.int32)
        for row in range(batch):
            places, classes = np.nonzero(scores[row] > score_threshold)
            clear = scores[row][places, classes]
            kept = obvious_nms(boxes[row][places], clear, classes, iou_threshold)[:max_output_boxes]
            counts[row] = len(kept)
            found_boxes[row, : len(kept)] = boxes[row][places[kept]]
            found_scores[row, : len(kept)] = clear[kept]
            found_classes[row, : len(kept)] = classes[kept]
        return counts, found_boxes, found_scores, found_classes


@layouts
@pytest.mark.parametrize("limit", [5, 100])
def test_around_the_plugin_all_is_as_in_the_decoder(layout: Layout, limit: int) -> None:
    evaluator = ReferenceEvaluator(with_plugin(layout, limit), new_ops=[EfficientNMS_TRT])
    values = crowd(layout, seed=limit)
    outputs: Any = evaluator.run(None, {"values": values})
    found = outputs[0]
    assert found.shape == (3, limit, 6)
    for row in range(3):
        assert_same(found[row], decoded(layout, values, row, wanted(max_detections=limit)))
