"""Configurations that load, what becomes of them, and that nothing but ConfigError comes of the others."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from streamproc.config import (
    CameraConfig,
    Config,
    ModelConfig,
    MqttConfig,
    PixelsConfig,
    RtspConfig,
    check_classes,
    config_schema,
)
from streamproc.config.pixels import parse_pixels
from streamproc.errors import ConfigError, ModelError
from streamproc.labels import COCO_80, read_labels, resolve_labels
from tests.configs import GATE, MODEL, SECRET, camera, load, make_world, problems, with_section


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_world(tmp_path, monkeypatch)


def test_ten_lines_are_a_configuration(folder: Path) -> None:
    config = load(
        folder,
        """
site: depot
model: {path: yolov8n.onnx}
mqtt: {url: "mqtt://127.0.0.1:1883"}
cameras:
  gate: {url: rtsp://10.0.0.5/stream1}
""",
    )
    assert (config.site, config.engine.kind, config.model.name) == ("depot", "openvino", "yolov8n")
    assert config.model.path == folder / "yolov8n.onnx"
    assert config.cameras["gate"].url == "rtsp://10.0.0.5/stream1"
    assert config.cameras["gate"].files == ()
    assert config.file is None
    assert config.mqtt is not None
    assert config.mqtt.url == "mqtt://127.0.0.1:1883"


def test_every_section(folder: Path) -> None:
    config = load(
        folder,
        """
site: depot
engine: {kind: onnxruntime, device: CPUExecutionProvider, max_batch: 4, threads: 2, precision: fp32}
model: {path: yolov8n.onnx, name: street, labels: coco, confidence: 0.3, iou: 1, max_detections: 50, size: [640, 352]}
budget: {fps: 15, max_frame_age_ms: 250}
tracking: {algorithm: none}
mqtt:
  url: mqtts://broker
  prefix: a/b
  username: me
  tls: {ca: a.pem, certificate: a.pem, key: a.pem, insecure: true}
file: {path: "~/{camera}.jsonl"}
video: {path: "{camera}.mkv"}
cameras:
  gate: {url: rtsp://h/a, transport: tcp, priority: 0.5, classes: [person, traffic light], confidence: 0, iou: 0.6}
  yard: {url: a.mp4, realtime: false, loop: on}
""",
    )
    assert config.engine.max_batch == 4
    assert config.model.size == (640, 352)
    assert config.mqtt is not None
    assert config.mqtt.tls is not None
    assert config.mqtt.tls.key == folder / "a.pem"
    assert (config.mqtt.url, config.mqtt.username, config.mqtt.password) == ("mqtts://broker:8883", "me", None)
    assert config.file is not None
    assert config.file.path == str(Path("~").expanduser() / "{camera}.jsonl")
    assert config.cameras["gate"].classes == ("person", "traffic light")
    assert (config.cameras["yard"].realtime, config.cameras["yard"].loop) == (False, True)


def test_defaults(folder: Path) -> None:
    config = load(folder, with_section("site: local"))
    assert (config.budget.fps, config.budget.max_frame_age_ms) == (24, 100)
    assert (config.model.confidence, config.model.iou, config.model.max_detections) == (0.25, 0.45, 300)
    assert not config.tracking.fill
    assert (config.tracking.algorithm, config.engine.max_batch, config.mqtt) == ("bytetrack", "auto", None)


def test_what_a_model_tells_of_each_object(folder: Path) -> None:
    assert load(folder, with_section(MODEL)).model.head == "auto"
    assert load(folder, with_section(MODEL[:-1] + ", head: pose}")).model.head == "pose"


def test_the_null_engine_needs_no_model_file(folder: Path) -> None:
    config = load(folder, with_section("model: {name: nothing, size: [320, 192]}\nengine: {kind: 'null'}"))
    assert (config.engine.kind, config.model.path, config.model.size) == ("null", None, (320, 192))
    named = load(folder, with_section("engine: {kind: 'null', max_batch: 4}"))
    assert named.model.name == "yolov8n"


def test_the_cascade_runs_here_unless_the_server_is_asked_for(folder: Path) -> None:
    assert load(folder, with_section("site: local")).cascade == "client"
    for engine in ("kind: triton", "kind: triton, managed: true, repository: folder"):
        text = f"{GATE}\nengine: {{{engine}}}\nmodel: {{name: m}}\ncascade: server\n"
        assert load(folder, text).cascade == "server"
        assert load(folder, f"{text}models: {{plates: {{name: plates}}}}\n").cascade == "server"


def test_yaml_is_read_as_editors_read_it(folder: Path) -> None:
    """YAML 1.2: `on`, `no` and numbers are names as they are written; anchors and merge keys work."""
    text = with_section(
        """cameras:
  on: &live {url: rtsp://h/a, priority: 2}
  1: {<<: *live, url: rtsp://h/b}
  no: {<<: [*live, {priority: 3, transport: tcp}]}"""
    )
    cameras = load(folder, text).cameras
    assert list(cameras) == ["on", "1", "no"]
    assert [item.priority for item in cameras.values()] == [2, 2, 2]
    assert (cameras["1"].url, cameras["no"].transport) == ("rtsp://h/b", "tcp")


def test_aliases_do_not_multiply_without_end(folder: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    (problem,) = problems(folder, "\n".join(levels))
    assert "aliases that multiply" in problem.found


class TestVariables:
    def test_several_in_one_text_and_escapes(self, folder: Path) -> None:
        (folder / "${X}-a.mp4").touch()
        text = camera("url: '$${X}-${NAME}.${SUFFIX}', confidence: '${CONFIDENCE}', loop: '${LOOP}'")
        environ = {"NAME": "a", "SUFFIX": "mp4", "CONFIDENCE": "0.5", "LOOP": "true"}
        gate = load(folder, text, environ).cameras["gate"]
        assert gate.files == (folder / "${X}-a.mp4",)
        assert (gate.confidence, gate.loop) == (0.5, True)

    def test_password_from_the_environment_may_hold_anything(self, folder: Path) -> None:
        text = camera("url: 'rtsp://${USER}:${PASSWORD}@10.0.0.5/s'")
        gate = load(folder, text, {"USER": "me", "PASSWORD": "p@ss/w#r?d%zz"}).cameras["gate"]
        assert gate.url == "rtsp://me:p%40ss%2Fw%23r%3Fd%25zz@10.0.0.5/s"

    def test_percent_encoded_password_stays(self, folder: Path) -> None:
        gate = load(folder, camera("url: 'rtsp://u:${P}@h/s'"), {"P": "p%40ss"}).cameras["gate"]
        assert gate.url == "rtsp://u:p%40ss@h/s"

    def test_every_missing_variable_is_named(self, folder: Path) -> None:
        found = problems(folder, camera("url: 'rtsp://${A}:${B}@h/${C}'"), {"A": "x"})
        assert [problem.found for problem in found] == ["${B}", "${C}"]

    @pytest.mark.parametrize(
        "text",
        [
            camera("url: '${SECRET}'"),
            camera("url: 'http://u:${SECRET}@h/'"),
            camera("url: 'rtsp://u:${SECRET}@h:0/'"),
            camera("url: 'rtsp://${SECRET}:x/'"),
            camera("url: '/no/${SECRET}.mp4'"),
            camera("url: 'rtsp://h/', confidence: '${SECRET}'"),
            with_section("site: '${SECRET}!'"),
            with_section("model: '${SECRET}'"),
            with_section("model: {path: '${SECRET}'}"),
            with_section(MODEL[:-1] + ", labels: ['${SECRET}1', b]}\ncameras: {a: {url: a.mp4, classes: ['x']}}")
            + "site: a b\n",
            with_section("mqtt: {url: '${SECRET}://h'}"),
            with_section("mqtt: {url: 'mqtt://u:${SECRET}@h'}"),
            with_section("mqtt: {url: 'mqtt://h', password: '${SECRET}'}"),
            with_section("video: {path: '${SECRET}'}"),
            camera(f"url: 'http://u:{SECRET}@h/'"),
            camera(f"url: 'rtsp://u:{SECRET}@h:0/'"),
            with_section(f"rtsp: {{push: 'rtsp://u:{SECRET}@h:0/a'}}"),
            with_section(f"rtsp: {{push: 'rtsp://u:{SECRET}@127.0.0.1:8554/a'}}"),
            with_section("rtsp: {push: 'rtsp://u:${SECRET}@h:8554'}"),
            camera(f"url: 'rtsp://u:{SECRET}'"),
            camera(f"url: 'rtsp://u:a/{SECRET}@h/'"),
            camera(f"url: 'rtsp://u:a@{SECRET}@h:0/'"),
            camera(f"url: 'rtsp:/u:x?password={SECRET}'"),
            camera(f"url: 'rtsp://h/ x?password={SECRET}'"),
            with_section(f"cameras: {{gate: 'rtsp://u:{SECRET}@h/'}}"),
            with_section(f"cameras: {{'rtsp://u:{SECRET}@h/': 1}}"),
            with_section(f"mqtt: {{url: 'mqtt://h', password: {SECRET}}}"),
            with_section(f"mqtt: {{url: 'mqtt://h', passwort: {SECRET}}}"),
            with_section(f"mqtt: {{url: 'mqtt://h', password: [{SECRET}]}}"),
        ],
    )
    def test_secrets_are_never_told(self, folder: Path, text: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load(folder, text, {"SECRET": SECRET})
        assert SECRET not in str(caught.value)
        assert SECRET.lower() not in str(caught.value).lower()

    def test_password_is_hidden_in_the_model(self, folder: Path) -> None:
        text = with_section("mqtt: {url: 'mqtts://h', username: a, password: '${P}'}")
        config = load(folder, text, {"P": SECRET})
        assert config.mqtt is not None
        assert config.mqtt.password is not None
        assert config.mqtt.password.get_secret_value() == SECRET
        assert SECRET not in repr(config)


class TestCameraUrl:
    @pytest.mark.parametrize(
        ("url", "normal"),
        [
            ("RTSP://Cam/Live", "rtsp://Cam/Live"),
            ("rtsps://u:p@h:322/x?channel=1&a=b@c", "rtsps://u:p@h:322/x?channel=1&a=b@c"),
            ("rtsp://u:p@ss@h/x", "rtsp://u:p%40ss@h/x"),
            ("rtsp://[fd00::5]:554/x", "rtsp://[fd00::5]:554/x"),
            ("rtsp://h/stream@1", "rtsp://h/stream@1"),
        ],
    )
    def test_accepted(self, url: str, normal: str) -> None:
        assert CameraConfig(url=url).url == normal

    def test_files_next_to_the_configuration_come_first(self, folder: Path) -> None:
        Path("a.mp4").touch()
        Path("c.mp4").touch()
        text = with_section(
            "cameras: {a: {url: a.mp4}, c: {url: c.mp4}, all: {url: '*.mp4'}, "
            f"uri: {{url: 'file://{folder}/a%2Emp4'}}}}"
        )
        cameras = load(folder, text).cameras
        assert cameras["a"].files == cameras["uri"].files == (folder / "a.mp4",)
        assert cameras["c"].files == (Path.cwd() / "c.mp4",)
        assert cameras["all"].files == (folder / "a.mp4", folder / "b.mp4")

    def test_home_and_literal_brackets(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(folder))
        (folder / "x[1].mp4").touch()
        text = with_section("cameras: {a: {url: '~/a.mp4'}, b: {url: 'x[1].mp4'}, c: {url: '~/[ab].mp4'}}")
        files = [item.files for item in load(folder, text).cameras.values()]
        assert files == [(folder / "a.mp4",), (folder / "x[1].mp4",), (folder / "a.mp4", folder / "b.mp4")]


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("MQTT://broker", "mqtt://broker:1883"),
        ("mqtts://broker", "mqtts://broker:8883"),
        ("mqtt://[::1]:2883/", "mqtt://[::1]:2883"),
        ("embedded://localhost:1884", "embedded://localhost:1884"),
    ],
)
def test_broker_url_always_has_its_port(url: str, normal: str) -> None:
    assert MqttConfig(url=url).url == normal


class TestPushUrl:
    @pytest.mark.parametrize(
        ("url", "there"),
        [
            ("RTSP://Media/{camera}", "rtsp://Media/gate"),
            ("rtsp://u:p@ss@h/live/{camera}?key=1", "rtsp://u:p%40ss@h/live/gate?key=1"),
            ("rtsps://[fd00::5]:8322/x/{camera}/y", "rtsps://[fd00::5]:8322/x/gate/y"),
            ("rtsp://127.0.0.1:8555/one", "rtsp://127.0.0.1:8555/one"),
        ],
    )
    def test_accepted(self, url: str, there: str) -> None:
        assert RtspConfig(push=url).push_url("gate") == there

    def test_instead_of_a_server_of_our_own(self) -> None:
        rtsp = RtspConfig(listen=None, push="rtsp://127.0.0.1:8554/{camera}")
        assert (rtsp.listen, rtsp.push_url("a")) == (None, "rtsp://127.0.0.1:8554/a")

    def test_password_from_the_environment_may_hold_anything(self, folder: Path) -> None:
        text = with_section("rtsp: {push: 'rtsp://me:${P}@media/{camera}'}")
        rtsp = load(folder, text, {"P": "p@s/s"}).rtsp
        assert rtsp is not None
        assert rtsp.push_url("gate") == "rtsp://me:p%40s%2Fs@media/gate"


class TestClasses:
    def test_checked_against_labels_in_the_configuration(self, folder: Path) -> None:
        for labels in ("coco", "labels.txt", "[person, car]"):
            cameras = "cameras: {gate: {url: a.mp4, classes: [car, persn, zebu-like]}}"
            found = problems(folder, f"model: {{path: yolov8n.onnx, labels: {labels}}}\n{cameras}\n")
            assert [problem.key for problem in found] == ["cameras.gate.classes[1]", "cameras.gate.classes[2]"]
            assert found[0].found == "'persn'"
            assert found[0].remedy == "Did you mean 'person'?"

    def test_checked_against_the_model_later(self, folder: Path) -> None:
        config = load(folder, camera("url: a.mp4, classes: [person, carr]"))
        check_classes(config, ["person", "carr"])
        with pytest.raises(ConfigError) as caught:
            check_classes(config, ["person", "car"])
        (problem,) = caught.value.problems
        assert problem.key == "cameras.gate.classes[1]"
        assert "Did you mean 'car'?" in str(caught.value)


class TestLabels:
    def test_coco(self) -> None:
        assert len(COCO_80) == len(set(COCO_80)) == 80
        assert (COCO_80[0], COCO_80[2], COCO_80[5], COCO_80[79]) == ("person", "car", "bus", "toothbrush")

    def test_resolve(self, folder: Path) -> None:
        assert resolve_labels("coco") == COCO_80
        assert resolve_labels(folder / "labels.txt") == ("person", "car")
        assert resolve_labels(("a",)) == ("a",)
        assert resolve_labels(None) is None

    @pytest.mark.parametrize("name", ["no.txt", "no_labels.txt", "latin1.txt", "folder"])
    def test_unreadable(self, folder: Path, name: str) -> None:
        with pytest.raises(ModelError, match=f"labels file .*{name}"):
            read_labels(folder / name)


class TestPixels:
    @pytest.mark.parametrize(
        ("keys", "mean", "scale"),
        [
            ("color: bgr", (0, 0, 0), None),
            ("scale: 1", (0, 0, 0), (1, 1, 1)),
            ("mean: 127.5, scale: 0.0078125", (127.5,) * 3, (0.0078125,) * 3),
            ("mean: [104, 117, 123], scale: [1, 0.5, -1]", (104, 117, 123), (1, 0.5, -1)),
        ],
    )
    def test_one_number_stands_for_three(
        self, folder: Path, keys: str, mean: tuple[float, ...], scale: tuple[float, ...] | None
    ) -> None:
        pixels = load(folder, with_section(f"model: {{path: yolov8n.onnx, pixels: {{{keys}}}}}")).model.pixels
        assert pixels is not None
        assert (pixels.mean, pixels.scale) == (mean, scale)

    def test_left_out_the_model_tells(self, folder: Path) -> None:
        model = load(folder, with_section("site: local")).model
        assert (model.pixels, model.fit) == (None, "auto")

    def test_with_a_server_of_our_own_the_model_is_built_for_them(self, folder: Path) -> None:
        model = "model: {path: yolov8n.onnx, pixels: {color: bgr}, fit: stretch}"
        config = load(folder, with_section(f"{model}\nengine: {{kind: triton, managed: true}}"))
        assert config.model.pixels == PixelsConfig(color="bgr")

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ({}, None),
            ({"color": "bgr"}, PixelsConfig(color="bgr")),
            ({"mean": "104,117,123", "scale": "1"}, PixelsConfig(mean=(104, 117, 123), scale=(1, 1, 1))),
        ],
    )
    def test_from_a_command_line(self, given: dict[str, str], expected: PixelsConfig | None) -> None:
        assert parse_pixels(**({"color": None, "mean": None, "scale": None} | given)) == expected

    def test_from_a_command_line_that_is_wrong(self) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_pixels(color=None, mean="1,2", scale="x")
        assert [(problem.key, problem.found) for problem in caught.value.problems] == [
            ("--mean", "'1,2'"),
            ("--scale", "'x'"),
        ]


class TestModelsMadeInCode:
    def test_look_at_no_file(self) -> None:
        gate = CameraConfig(url="no.mp4", files=(Path("no.mp4"),), loop=True)
        model = ModelConfig(path=Path("no.onnx"))
        config = Config(model=model, cameras={"gate": gate})
        assert config.cameras["gate"].files == (Path("no.mp4"),)
        assert model.name == "no"

    def test_are_frozen_and_checked(self) -> None:
        gate = CameraConfig(url="no.mp4")
        with pytest.raises(ValidationError, match="frozen"):
            gate.priority = 2
        with pytest.raises(ValidationError, match="loop only with files"):
            CameraConfig(url="rtsp://h/", loop=True)


class TestSchema:
    def test_names_every_key_and_describes_it(self) -> None:
        schema = config_schema()
        json.dumps(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert list(schema["properties"]) == [
            "site", "engine", "model", "models", "cascade", "budget", "tracking", "mqtt", "file", "video", "rtsp",
            "cameras",
        ]  # fmt: skip
        for section in (schema, *schema["$defs"].values()):
            assert section["additionalProperties"] is False
            assert section["description"]
            for name, node in section["properties"].items():
                assert "$ref" in node or node["description"], name  # a section describes itself

    def test_has_the_shape_that_users_write(self) -> None:
        schema = config_schema()
        definitions: dict[str, Any] = schema["$defs"]
        cameras = schema["properties"]["cameras"]
        assert cameras["additionalProperties"] == {"$ref": "#/$defs/CameraConfig"}
        assert cameras["propertyNames"]["pattern"] == "^[A-Za-z0-9_-]+$"
        assert "files" not in definitions["CameraConfig"]["properties"]
        labels = definitions["ModelConfig"]["properties"]["labels"]
        assert [option["type"] for option in labels["anyOf"]] == ["string", "array", "null"]
        assert definitions["ModelConfig"]["anyOf"] == [{"required": ["path"]}, {"required": ["name"]}]
        kinds = definitions["EngineConfig"]["properties"]["kind"]["enum"]
        assert kinds == ["openvino", "onnxruntime", "triton", "null"]
        assert definitions["ModelConfig"]["properties"]["confidence"]["maximum"] == 1


KEYS = sorted({key for node in (config_schema(), *config_schema()["$defs"].values()) for key in node["properties"]})
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["${A}", "${B", "rtsp://u:p@h/x", "rtsp://[", "mqtt://h", "*", "coco", "yolov8n.onnx", "~x/y"])
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), inner),
    max_leaves=25,
)
same_folder = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_folder
@given(tree=st.dictionaries(st.sampled_from(KEYS), trees))
def test_any_tree_loads_or_is_a_config_error(folder: Path, tree: dict[str, object]) -> None:
    with contextlib.suppress(ConfigError):
        load(folder, yaml.safe_dump(tree, allow_unicode=True), {"A": "x"})


@same_folder
@given(text=st.text() | st.binary())
def test_any_text_loads_or_is_a_config_error(folder: Path, text: str | bytes) -> None:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    with pytest.raises(ConfigError):
        load(folder, data)
