"""The MQTT payloads against their contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.about import About, Child, Reading
from streamproc.messages import (
    CameraStatusMessage,
    EventMessage,
    SchemaName,
    SiteStatusMessage,
    decode_detections,
    decode_status,
    encode_camera_status,
    encode_detections,
    encode_site_status,
    schema_for,
)
from streamproc.types import CameraState, CameraStatus, Detections, Frame, FrameResult, Picture, Rotation
from tests.schemas import faults

CAPTURED_NS = 1_763_651_045_123_999_999


def result(
    count: int = 2, *, width: int = 64, height: int = 36, rotation: Rotation = 0, captured_utc_ns: int = CAPTURED_NS
) -> FrameResult:
    half = np.zeros((height // 2, width // 2), np.uint8)
    picture = Picture(planes=(np.zeros((height, width), np.uint8), half, half), layout="yuv420p", rotation=rotation)
    frame = Frame(
        camera="gate", seq=7, pts_s=51.41712, captured_ns=0, captured_utc_ns=captured_utc_ns, live=True, picture=picture
    )
    detections = Detections.of(
        boxes=np.array([[1.26, 2, 3.04, 4]] * count, np.float32).reshape(-1, 4),
        confidence=np.array([0.91234] * count, np.float32),
        class_ids=np.arange(count),
        track_ids=np.arange(count),
    )
    return FrameResult(frame=frame, detections=detections, labels=("person", "car"), model="yolov8n")


def test_detections_are_the_contract_to_the_letter() -> None:
    assert encode_detections(result(), site="depot", age_ms=38.249).decode() == (
        '{"schema":"streamproc.detections/1","site":"depot","camera":"gate","seq":7,"pts_s":51.417,'
        '"captured_at":"2025-11-20T15:04:05.123Z","age_ms":38.2,"width":64,"height":36,"model":"yolov8n","detections":['
        '{"track_id":null,"class_id":0,"label":"person","confidence":0.912,"box":[1.3,2.0,3.0,4.0]},'
        '{"track_id":1,"class_id":1,"label":"car","confidence":0.912,"box":[1.3,2.0,3.0,4.0]}]}'
    )


def test_what_is_predicted_says_so_and_nothing_else_does() -> None:
    seen, predicted = (
        encode_detections(replace(result(), predicted=predicted), site="depot", age_ms=38.2)
        for predicted in (False, True)
    )
    assert b"predicted" not in seen
    assert predicted == seen.replace(b'"model":"yolov8n",', b'"model":"yolov8n","predicted":true,')
    assert [decode_detections(payload).predicted for payload in (seen, predicted)] == [False, True]
    schema = schema_for("detections")
    assert faults(json.loads(predicted), schema, schema["$defs"]) == []
    described = schema["$defs"]["DetectionsMessage"]
    assert described["properties"]["predicted"]["default"] is False
    assert "predicted" not in described["required"]


def test_keypoints_are_told_where_there_are_some() -> None:
    plain = result()
    points = np.array([[[10.26, 20, 0.12345], [30.04, 35.99, 1]]] * 2, np.float32)
    pose = replace(plain, detections=replace(plain.detections, keypoints=points))
    payload = encode_detections(pose, site="depot", age_ms=38.2)
    told = b',"keypoints":[[10.3,20.0,0.123],[30.0,36.0,1.0]]'
    assert payload.replace(told, b"") == encode_detections(plain, site="depot", age_ms=38.2)
    assert payload.count(told) == 2
    np.testing.assert_allclose(points[0, 0], [10.26, 20, 0.12345], rtol=1e-6, err_msg="what was found was changed")
    found = decode_detections(payload).detections
    assert [one.keypoints for one in found] == [((10.3, 20, 0.123), (30, 36, 1))] * 2
    schema = schema_for("detections")
    assert faults(json.loads(payload), schema, schema["$defs"]) == []
    assert "keypoints" not in schema["$defs"]["DetectedObject"]["required"]


def test_an_object_without_keypoints_has_none() -> None:
    (found, _) = decode_detections(encode_detections(result(), site="depot", age_ms=0)).detections
    assert found.keypoints == ()


@pytest.mark.parametrize("keypoint", [[1.0, 2.0], [1.0, 2.0, 1.5], [1.0, "2", 0.5]])
def test_schema_and_decoder_refuse_what_is_no_keypoint(keypoint: list[object]) -> None:
    payload = json.loads(encode_detections(result(1), site="depot", age_ms=0))
    payload["detections"][0]["keypoints"] = [keypoint]
    with pytest.raises(ValueError, match="keypoints"):
        decode_detections(json.dumps(payload).encode())


def test_what_secondary_models_say_is_told_of_whom_it_is_said() -> None:
    plate = Child(
        model="plates",
        label="plate",
        confidence=0.8764,
        box=(1.26, 2, 3.04, 4),
        about=About(texts={"text": Reading(value="沪A1", confidence=0.9876)}),
    )
    about = About(
        attributes={"colour": (Reading(value="red", confidence=0.6), Reading(value="blue", confidence=0.25))},
        embeddings={"looks": np.array([0.6, 0.8], np.float32)},
        children=(plate,),
    )
    told = json.loads(encode_detections(replace(result(), about=(None, about)), site="depot", age_ms=1))
    first, second = told["detections"]
    assert set(first) == {"track_id", "class_id", "label", "confidence", "box"}
    assert {key: second[key] for key in set(second) - set(first)} == {
        "attributes": {"colour": [{"label": "red", "confidence": 0.6}, {"label": "blue", "confidence": 0.25}]},
        "embedding": {"looks": [0.6, 0.8]},
        "children": [
            {
                "model": "plates",
                "label": "plate",
                "confidence": 0.876,
                "box": [1.3, 2.0, 3.0, 4.0],
                "text": {"text": {"text": "沪A1", "confidence": 0.988}},
            }
        ],
    }
    schema = schema_for("detections")
    assert faults(told, schema, schema["$defs"]) == []
    assert decode_detections(json.dumps(told).encode()).detections[1].children[0].text["text"].text == "沪A1"


def test_nothing_found_is_an_empty_list() -> None:
    assert json.loads(encode_detections(result(0), site="depot", age_ms=0))["detections"] == []


def test_size_is_that_of_the_upright_picture() -> None:
    message = decode_detections(encode_detections(result(rotation=90), site="depot", age_ms=0))
    assert (message.width, message.height) == (36, 64)


def test_class_without_a_label_is_named_by_its_number() -> None:
    message = decode_detections(encode_detections(result(3), site="depot", age_ms=0))
    assert [item.label for item in message.detections] == ["person", "car", "2"]


@given(utc_ns=st.integers(0, 4_000_000_000_000_000_000))
def test_times_are_utc_milliseconds_rounded_down(utc_ns: int) -> None:
    message = decode_detections(encode_detections(result(0, captured_utc_ns=utc_ns), site="depot", age_ms=0))
    moment = datetime.strptime(message.captured_at, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert round(moment.timestamp() * 1000) == utc_ns // 1_000_000


def test_camera_status() -> None:
    status = CameraStatus(camera="gate", state=CameraState.OFFLINE, reason="timeout", since_utc_ns=CAPTURED_NS)
    payload = encode_camera_status(status, site="depot", fps=23.976)
    assert payload.decode() == (
        '{"schema":"streamproc.status/1","state":"offline","reason":"timeout","since":"2025-11-20T15:04:05.123Z",'
        '"fps":24.0,"clock":null,"site":"depot","camera":"gate"}'
    )
    message = decode_status(payload)
    assert isinstance(message, CameraStatusMessage)
    assert (message.camera, message.state, message.reason) == ("gate", "offline", "timeout")


@pytest.mark.parametrize("state", list(CameraState))
def test_every_camera_state_can_be_told(state: CameraState) -> None:
    status = CameraStatus(camera="gate", state=state, reason=None, since_utc_ns=0)
    message = decode_status(encode_camera_status(status, site="depot", fps=0))
    assert isinstance(message, CameraStatusMessage)
    assert (message.state, message.reason) == (state.value, None)


def test_site_status() -> None:
    payload = encode_site_status("offline", site="depot", version="0.1.0")
    assert payload.decode() == '{"schema":"streamproc.site/1","state":"offline","site":"depot","version":"0.1.0"}'
    assert decode_status(payload) == SiteStatusMessage(state="offline", site="depot", version="0.1.0")


def test_decoders_take_keys_of_later_versions() -> None:
    payload = json.loads(encode_detections(result(), site="depot", age_ms=0)) | {"zone": "door"}
    assert decode_detections(json.dumps(payload).encode()).camera == "gate"


@pytest.mark.parametrize("decode", [decode_detections, decode_status])
@pytest.mark.parametrize("payload", [b"", b"\xff\xfe", b"[]", b"{}", b'{"schema":"streamproc.events/1"}', b"[" * 5000])
def test_decoders_refuse_what_departs_from_the_contract(decode: Callable[[bytes], object], payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a streamproc\."):
        decode(payload)


@pytest.mark.parametrize("key", ["schema", "site", "captured_at", "detections"])
def test_every_key_is_required(key: str) -> None:
    payload = json.loads(encode_detections(result(), site="depot", age_ms=0))
    del payload[key]
    with pytest.raises(ValueError, match=key):
        decode_detections(json.dumps(payload).encode())


@given(payload=st.binary())
def test_any_bytes_decode_or_are_a_value_error(payload: bytes) -> None:
    for decode in (decode_detections, decode_status):
        with pytest.raises(ValueError, match=r"not a streamproc\."):
            decode(payload)


def example(name: SchemaName) -> dict[str, Any]:
    status = CameraStatus(camera="gate", state=CameraState.ONLINE, reason=None, since_utc_ns=CAPTURED_NS)
    payloads = {
        "detections": encode_detections(result(), site="depot", age_ms=38.2),
        "status": encode_camera_status(status, site="depot", fps=24),
    }
    if name == "events":
        when = "2025-11-20T15:04:05.123Z"
        event = EventMessage(
            schema="streamproc.events/1", id="1", site="a", camera="b", type="line", at=when, track_id=None, label=None
        )
        return {field: getattr(event, field) for field in event.__struct_fields__}
    decoded: dict[str, Any] = json.loads(payloads[name])
    return decoded


@pytest.mark.parametrize("name", get_args(SchemaName))
def test_schemas_hold_for_an_example(name: SchemaName) -> None:
    schema = schema_for(name)
    json.dumps(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert faults(example(name), schema, schema["$defs"]) == []


def test_status_schema_holds_for_the_site_too() -> None:
    schema = schema_for("status")
    payload = json.loads(encode_site_status("online", site="depot", version="0.1.0"))
    assert faults(payload, schema, schema["$defs"]) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("schema", "x"), ("site", "a b"), ("seq", -1), ("captured_at", "2025-11-20"), ("detections", [{}]), ("width", 0)],
)
def test_schema_refuses_what_departs_from_the_contract(key: str, value: object) -> None:
    schema = schema_for("detections")
    assert faults({**example("detections"), key: value}, schema, schema["$defs"]) != []
