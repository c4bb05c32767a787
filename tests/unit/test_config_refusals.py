"""Every kind of bad configuration, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamproc.config import load_config
from streamproc.errors import ConfigError
from tests.configs import GATE, MODEL, SECRET, camera, load, make_world, problems, with_section


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_world(tmp_path, monkeypatch)


def with_model(keys: str, engine: str = "openvino") -> str:
    """The smallest configuration, its model having these keys."""
    return f"{GATE}\nengine: {{kind: {engine}}}\nmodel: {{{keys}}}\n"


def pixels(keys: str) -> str:
    """The smallest configuration, its model's pixels having these keys."""
    return with_model(f"path: yolov8n.onnx, pixels: {{{keys}}}")


def models(text: str, more: str = "") -> str:
    """The smallest configuration with these models on its detector, and further sections."""
    return with_section(f"models: {{{text}}}\n{more}")


def triton(keys: str) -> str:
    """A configuration whose engine section has these keys besides its kind."""
    return f"{GATE}\nengine: {{kind: triton, {keys}}}\nmodel: {{name: m}}\n"


def pushed(keys: str) -> str:
    """The smallest configuration with live streams that have these keys."""
    return with_section(f"rtsp: {{{keys}}}")


SYNTAX: list[tuple[str | bytes, str, str, str]] = [
    # text, place, found, remedy
    (b"caf\xe9", "", "a byte that is not UTF-8, at offset 3", "Save the file as UTF-8"),
    ("", "", "an empty file", "model and cameras"),
    ("# nothing\n", "", "an empty file", "model and cameras"),
    ("- a\n", "", "a list at the top level", "model and cameras"),
    ("hello\n", "", "plain text at the top level", "model and cameras"),
    ("a: 1\nb:\n\tc: 1\n", "line 3, column 1", "a tab", "Indent with spaces"),
    ("a: [1", "line 1, column 6", "an unfinished [list]", "Close the bracket"),
    ("a: {b: ${X}}", "line 1, column 9", "an unfinished [list] or {section}", "quote text that holds brackets"),
    ("a: 'x", "line 1, column 6", "the end of the file inside quotes", "Close the quotes"),
    ("a: b: c", "line 1, column 5", "a ':' where no key can stand", "Quote text that holds ': '"),
    ("a:\n  b: 1\n c: 2\n", "line 3, column 2", "a line that does not fit", "Indent the lines"),
    ("a: 1\nb\n", "line 3, column 1", "a line without ':'", "Add the ':'"),
    ("a: 1\n---\nb: 2\n", "line 2, column 1", "a second document", "split the file"),
    (f"password: *{SECRET}", "line 1, column 11", "an alias (*name) without its anchor", "Quote text"),
    (f"password: %{SECRET}", "line 1, column 11", "a character that needs quotes", "in quotes"),
    (f"password: !h!{SECRET} x", "line 1, column 11", "a tag (!name)", "Quote text"),
    ("a: \x01", "line 1", "a control character", "Remove it"),
    ("[" * 3000, "", "sections nested too deep", "Check the brackets"),
]


@pytest.mark.parametrize(("text", "place", "found", "remedy"), SYNTAX)
def test_unreadable_file(folder: Path, text: str | bytes, place: str, found: str, remedy: str) -> None:
    (problem,) = problems(folder, text)
    assert problem.key == place
    assert found in problem.found
    assert remedy in problem.remedy
    assert SECRET not in str(problem)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope\.yaml: 1 problem\n.*found no such file; expected a YAML file"):
        load_config(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match="found a directory; expected a YAML file"):
        load_config(tmp_path)


STREAMS = "rtsp://, rtsps://, a video file, or a glob"
BROKERS = "mqtt://HOST:1883, mqtts://HOST:8883 or embedded://"
ENCODE = "Percent-encode reserved characters"
LOOKED = "Looked next to the configuration ("
YAML_ONLY = [
    # configuration, key, found, expected, remedy; what no plain tree of values can hold
    (with_section("cameras: {? [a] : 1}"), "cameras", "a list or section as a key, on line 2", "text", "quotes"),
    (with_section("cameras: &a {x: *a}"), "cameras.x", "an alias to what holds it", "plain", "Write the value out"),
    (
        with_section("cameras: {a: {<<: 3, url: a.mp4}}"),
        "cameras.a.'<<'",
        "no section to merge",
        "alias",
        "<<: *defaults",
    ),
    (with_section("site: !secret x"), "site", "a YAML tag", "a plain value", "Remove the tag"),
]
VALUES = [
    # configuration, key, found, expected, remedy
    (MODEL, "cameras", "nothing", "at least one camera", "cameras: {gate: {url: rtsp://10.0.0.5/stream1}}"),
    (with_section("cameras: {}"), "cameras", "an empty section", "at least one camera", "Write"),
    (with_section("cameras:"), "cameras", "nothing", "at least one camera", "Write"),
    (with_section("cameras: [gate]"), "cameras", "a list", "each under its name", "Write"),
    (with_section("web: {listen: x}"), "web", "an unknown key", "one of site, engine", "streamproc schema config"),
    (with_section("sight: x"), "sight", "an unknown key", "one of site", "Did you mean 'site'?"),
    (with_section("site: front door"), "site", "'front door'", "letters, digits", "replace other characters"),
    (with_section("site: 5"), "site", "5", "text", "Put it in quotes"),
    (with_section("site:"), "site", "nothing", "text", "site: local"),
    (with_section("cameras: {status: {url: 'rtsp://h/'}}"), "cameras.status", "'status'", "other than", "is taken"),
    (with_section("cameras: {a b: {url: 'rtsp://h/'}}"), "cameras.'a b'", "'a b'", "letters", "replace"),
    (with_section("cameras: {a: rtsp://h/x}"), "cameras.a", "'rtsp://h/x'", "the keys url", "below it, such as url:"),
    (with_section("cameras: {a: }"), "cameras.a", "nothing", "the keys url", "below it, such as url:"),
    # cameras: addresses
    (camera(""), "cameras.gate.url", "nothing", "an rtsp:// or rtsps:// address", "Add, for example, url: rtsp://"),
    (camera("url: ''"), "cameras.gate.url", "empty text", STREAMS, "rtsp://10.0.0.5"),
    (camera("url: 0"), "cameras.gate.url", "0", "text", "quotes"),
    (camera("url: 'http://h/x'"), "cameras.gate.url", "the kind http://", STREAMS, "RTSP address"),
    (camera("url: 'rtmp://h/x'"), "cameras.gate.url", "the kind rtmp://", STREAMS, "RTSP address"),
    (camera("url: 'udp://h:1'"), "cameras.gate.url", "the kind udp://", STREAMS, "RTSP address"),
    (camera("url: 'rtps://h/x'"), "cameras.gate.url", "the kind rtps://", STREAMS, "Did you mean 'rtsps'?"),
    (camera("url: 'rtsp:/h/x'"), "cameras.gate.url", "'rtsp:/h/x'", STREAMS, "two slashes"),
    (camera("url: 'rtsp:///x'"), "cameras.gate.url", "without a usable host", "rtsp://HOST", "Add the name"),
    (camera("url: 'rtsp://h:99999/'"), "cameras.gate.url", "a port", "from 1 to 65535", "Correct the port"),
    (camera("url: 'rtsp://h:0/'"), "cameras.gate.url", "a port", "from 1 to 65535", "Correct the port"),
    (camera("url: 'rtsp://u:pa/ss@h/'"), "cameras.gate.url", "an '@' behind", "rtsp://USER:PASSWORD", ENCODE),
    (camera("url: 'rtsp://u:pa#ss@h/'"), "cameras.gate.url", "an '@' behind", "rtsp://USER:PASSWORD", ENCODE),
    (camera("url: 'rtsp://u:pa?ss@h/'"), "cameras.gate.url", "an '@' behind", "rtsp://USER:PASSWORD", ENCODE),
    (camera("url: 'rtsp://h /x'"), "cameras.gate.url", "'rtsp://h /x'", "without blanks", "%20"),
    (camera("url: 'rtsp://[fe80::1/x'"), "cameras.gate.url", "rtsp", "rtsp://HOST", "in brackets"),
    (camera("url: 'C:\\x.mp4'"), "cameras.gate.url", "a Windows path", STREAMS, "as this machine sees it"),
    (camera("url: 'file://nas/x.mp4'"), "cameras.gate.url", "file://nas", "of this machine", "three slashes"),
    (camera("url: no.mp4"), "cameras.gate.url", "'no.mp4'", "a video file that exists", LOOKED),
    (camera("url: /no.mp4"), "cameras.gate.url", "'/no.mp4'", "a video file that exists", "absolute path"),
    (camera("url: 'no*.mp4'"), "cameras.gate.url", "'no*.mp4'", "matches at least one file", LOOKED),
    (camera("url: folder"), "cameras.gate.url", "a directory", "a video file or a glob", "DIRECTORY/*.mp4"),
    (camera("url: /dev/null"), "cameras.gate.url", "no regular file", "a video file", "Name a regular file"),
    # cameras: the other keys
    (camera("url: 'rtsp://h/', realtime: true"), "cameras.gate.realtime", "true", "only with files", "Remove"),
    (camera("url: 'rtsp://h/', loop: false"), "cameras.gate.loop", "false", "only with files", "Remove"),
    (camera("url: a.mp4, transport: tcp"), "cameras.gate.transport", "'tcp'", "only with an rtsp://", "Remove"),
    (camera("url: a.mp4, transport: tpc"), "cameras.gate.transport", "'tpc'", "auto, tcp, udp", "Did you mean 'tcp'?"),
    (camera("url: a.mp4, files: []"), "cameras.gate.files", "an unknown key", "one of url", "Remove it"),
    (camera("url: a.mp4, confidense: 1"), "cameras.gate.confidense", "unknown", "one of", "mean 'confidence'?"),
    (camera("url: a.mp4, confidence: 1.5"), "cameras.gate.confidence", "1.5", "from 0 to 1", "confidence: 0.4"),
    (camera("url: a.mp4, confidence: true"), "cameras.gate.confidence", "true", "from 0 to 1", "confidence: 0.4"),
    (camera("url: a.mp4, iou: .nan"), "cameras.gate.iou", "not-a-number", "from 0 to 1", "iou: 0.5"),
    (camera("url: a.mp4, iou: high"), "cameras.gate.iou", "'high'", "from 0 to 1", "iou: 0.5"),
    (camera("url: a.mp4, priority: 0"), "cameras.gate.priority", "0", "above 0", "priority: 1."),
    (camera("url: a.mp4, max_detections: 1.5"), "cameras.gate.max_detections", "1.5", "whole number", "100"),
    (camera("url: a.mp4, loop: 5"), "cameras.gate.loop", "5", "true or false", "loop: false"),
    (camera("url: a.mp4, classes: person"), "cameras.gate.classes", "'person'", "a list", "in brackets"),
    (camera("url: a.mp4, classes: []"), "cameras.gate.classes", "an empty list", "at least one", "[person, car]"),
    (camera("url: a.mp4, classes: [1]"), "cameras.gate.classes[0]", "1", "text", "quotes"),
    # variables
    (camera("url: 'rtsp://u:${GATE}@h/'"), "cameras.gate.url", "${GATE}", "in the environment", "export GATE="),
    (camera("url: 'rtsp://${}@h/'"), "cameras.gate.url", "names no variable", "${NAME}", "'$${'"),
    (camera("url: 'rtsp://${A:-b}@h/'"), "cameras.gate.url", "names no variable", "${NAME}", "'$${'"),
    # model
    (GATE, "model", "nothing", "the keys path, name, version", "Add, for example, model: {path: yolov8n.onnx}"),
    (with_section("model: yolov8n.onnx"), "model", "'yolov8n.onnx'", "the keys path", "such as path: yolov8n.onnx"),
    (with_section("model: {path: ''}"), "model.path", "empty text", "an .onnx file", "Write the path"),
    (with_section("model: {path: no.onnx}"), "model.path", "'no.onnx'", "a model file that exists", LOOKED),
    (with_section("model: {path: folder}"), "model.path", "a directory", "an .onnx file", "Name the model's"),
    (with_section("model: {path: m.pt}"), "model.path", "'m.pt'", "an .onnx file", "export them to ONNX"),
    (with_section("model: {path: m.engine}"), "model.path", "'m.engine'", "an .onnx file", "TensorRT engine"),
    (with_section("model: {path: m.bin}"), "model.path", "'m.bin'", "an OpenVINO .xml", "name the .xml file"),
    (with_section("model: {path: lonely.xml}"), "model.path", "without its .bin", ".bin beside it", "Copy the .bin"),
    (
        with_section("model: {path: m.xml}\nengine: {kind: onnxruntime}"),
        "model.path",
        "'m.xml'",
        "an .onnx file",
        "engine.kind: openvino",
    ),
    (with_section(MODEL[:-1] + ", labels: cocoo}"), "model.labels", "'cocoo'", "coco, or a labels file", LOOKED),
    (with_section(MODEL[:-1] + ", head: posse}"), "model.head", "'posse'", "auto, detector, pose", "mean 'pose'?"),
    (with_section(MODEL[:-1] + ", labels: no_labels.txt}"), "model.labels", "'no_labels.txt'", "class name", "a line"),
    (with_section(MODEL[:-1] + ", labels: latin1.txt}"), "model.labels", "'latin1.txt'", "class name", "UTF-8"),
    (with_section(MODEL[:-1] + ", labels: [1]}"), "model.labels", "not text", "a list of class names", "quote names"),
    (with_section(MODEL[:-1] + ", labels: []}"), "model.labels", "an empty list", "list of class names", "[person"),
    (with_section(MODEL[:-1] + ", size: 640}"), "model.size", "640", "a list of 2", "size: [640, 640]"),
    (with_section(MODEL[:-1] + ", size: [640]}"), "model.size", "a list", "a list of 2", "size: [640, 640]"),
    (with_section(MODEL[:-1] + ", size: [640, 650]}"), "model.size[1]", "650", "a multiple of 32", "Correct"),
    (with_section(MODEL[:-1] + ", iou: 7}"), "model.iou", "7", "a number from 0 to 1", "iou: 0.45"),
    # pixels
    (with_model("path: yolov8n.onnx, fit: fill"), "model.fit", "'fill'", "letterbox, top_left, stretch", "choose one"),
    (with_model("path: yolov8n.onnx, fit: streched"), "model.fit", "'streched'", "auto, letterbox", "'stretch'?"),
    (pixels("color: bgra"), "model.pixels.color", "'bgra'", "one of rgb, bgr", "'bgr'?"),
    (pixels("colour: bgr"), "model.pixels.colour", "unknown", "one of color, mean, scale", "'color'?"),
    (pixels("mean: 256, scale: 1"), "model.pixels.mean", "256", "a number from 0 to 255", "mean: 127.5"),
    (pixels("mean: [1, 2], scale: 1"), "model.pixels.mean", "a list", "a list of three", "103.53]"),
    (pixels("mean: .nan, scale: 1"), "model.pixels.mean", "not-a-number", "from 0 to 255", "mean: 127.5"),
    (pixels("mean: high, scale: 1"), "model.pixels.mean", "'high'", "from 0 to 255", "mean: 127.5"),
    (pixels("mean: true, scale: 1"), "model.pixels.mean", "true", "a number from 0 to 255 or a list of 3", "Write"),
    (pixels("mean: [0.485, 0.456, 0.406], scale: 1"), "model.pixels.mean", "a list", "from 0 to 255", "by 255"),
    (pixels("mean: 127.5"), "model.pixels.scale", "nothing", "a scale beside the mean", "0.003922"),
    (pixels("scale: 0"), "model.pixels.scale", "0", "that is not 0", "scale: 1 for"),
    (pixels("scale: [1, 0, 1]"), "model.pixels.scale", "a list", "that is not 0", "scale: 1 for"),
    (pixels("scale: .inf"), "model.pixels.scale", "inf", "from -255 to 255", "leave it out"),
    (pixels("scale: 1000"), "model.pixels.scale", "1000", "from -255 to 255", "leave it out"),
    (pixels("scale: false"), "model.pixels.scale", "false", "a number from -255 to 255 or", "scale: 1"),
    (with_model("path: yolov8n.onnx, pixels: bgr"), "model.pixels", "'bgr'", "the keys color, mean", "such as color:"),
    (with_model("name: m, pixels: {color: bgr}", "triton"), "model.pixels", "a section", "no pixels", "--color"),
    # models
    (models("a: {}"), "models.a.path", "nothing", "an ONNX model", "path: yolov8n.onnx"),
    (models("a b: {path: yolov8n.onnx}"), "models.'a b'", "'a b'", "a name of letters", "replace other characters"),
    (models("detector: {path: yolov8n.onnx}"), "models", "a model named detector", "another name", "the section model"),
    (models("a: {path: yolov8n.onnx, on: b}"), "models", "a on 'b'", "one of detector, a", "on: detector"),
    (models("a: {path: yolov8n.onnx, on: a}"), "models", "a on itself", "no circle", "stand on detector"),
    (
        models("a: {path: yolov8n.onnx, head: embedding}, b: {path: yolov8n.onnx, on: a}"),
        "models",
        "b on a, which finds no objects",
        "objects",
        "Let b stand on detector",
    ),
    (models("a: {path: yolov8n.onnx, head: text}"), "models.a.head", "'text'", "ctc, embedding", "choose one"),
    (
        models("a: {path: yolov8n.onnx, head: embedding, beam: 3}"),
        "models.a.beam",
        "3",
        "beam only with head: ctc",
        "or remove beam",
    ),
    (models("a: {path: yolov8n.onnx, rectify: stn.onnx}"), "models.a.rectify", "'stn.onnx'", "an ONNX model", LOOKED),
    (models("a: {path: yolov8n.onnx, crop: {expand: -1}}"), "models.a.crop.expand", "-1", "from 0 to 2", "expand"),
    (
        models("a: {path: yolov8n.onnx, crop: {straighten: plate}}"),
        "models.a.crop.straighten",
        "'plate'",
        "true or false",
        "straighten",
    ),
    (
        models("a: {path: yolov8n.onnx, head: detector, size: [192, 48]}"),
        "models.a.size",
        "a list",
        "multiples of 32 with head: detector",
        "size: [192, 64]",
    ),
    (models("a: {path: yolov8n.onnx, size: [192, 4]}"), "models.a.size[1]", "4", "from 8 to 4096", "Correct"),
    (models("a: {path: yolov8n.onnx, every_s: -1}"), "models.a.every_s", "-1", "from 0", "every_s"),
    (models("a: {path: yolov8n.onnx, per_track: {votes: 3}}"), "models.a.per_track.votes", "unknown", "vote", "mean"),
    (
        models("a: {path: yolov8n.onnx}", "tracking: {algorithm: none}"),
        "cameras",
        "live cameras without tracking",
        "a tracker",
        "algorithm: bytetrack",
    ),
    (
        models("a: {path: yolov8n.onnx}", "tracking: {reid: {model: b}}"),
        "tracking",
        "reid by 'b'",
        "head: embedding",
        "Add it to models",
    ),
    (
        f"{GATE}\n{MODEL}\nengine: {{kind: triton, managed: true}}\nmodels: {{a: {{path: yolov8n.onnx}}}}",
        "models",
        "a managed server without a repository",
        "that has them all",
        "engine.repository",
    ),
    # where the cascade runs
    (with_section("cascade: both"), "cascade", "'both'", "one of client, server", "choose one of them"),
    (with_section("cascade: servr"), "cascade", "'servr'", "one of client, server", "Did you mean 'server'?"),
    (with_section("cascade: server"), "cascade", "'server'", "only with engine.kind: triton", "or cascade: client"),
    (
        f"{GATE}\n{MODEL}\nengine: {{kind: triton, managed: true}}\ncascade: server",
        "cascade",
        "a managed server without a repository",
        "a repository that has the cascade",
        "name the folder in engine.repository",
    ),
    # engine, budget, tracking
    (with_section("engine: {kind: tflite}"), "engine.kind", "'tflite'", "openvino, onnxruntime, triton", "no others"),
    (with_section("engine: {kind: openvno}"), "engine.kind", "'openvno'", "openvino, onnxruntime", "mean 'openvino'?"),
    (
        with_section("engine: {kind: onnxruntime, precision: bf16}"),
        "engine.precision",
        "'bf16'",
        "auto or fp32 with onnxruntime",
        "precision: auto",
    ),
    (with_section("engine: {max_batch: 0}"), "engine.max_batch", "0", "auto, or a whole number", "max_batch: 8"),
    (with_section("engine: {max_batch: true}"), "engine.max_batch", "true", "from 1 to 256 or auto", "auto"),
    (with_section("engine: {hosts: x}"), "engine.hosts", "an unknown key", "one of kind, device", "Remove it"),
    (with_section("engine: {url: 'h:8001'}"), "engine.url", "'h:8001'", "grpc://HOST:8001 or grpcs", "Begin the"),
    (triton("url: http://h:8000"), "engine.url", "the kind http://", "grpc://HOST:8001", "the port of Triton's gRPC"),
    (triton("url: 'grpc://u:p@h'"), "engine.url", "a user name or password", "grpc://HOST", "engine.headers"),
    (triton("url: grpc://h/m"), "engine.url", "a path behind", "grpc://HOST", "named by model.name"),
    (triton("url: 'grpc://h:99999'"), "engine.url", "a port that is not usable", "1 to 65535", "Correct the port"),
    (triton("urls: []"), "engine.urls", "an empty list", "at least one", "Write, for example, urls: [grpc://"),
    (triton("urls: [grpc://h, 'grpc://h:8001']"), "engine.urls", "a list", "each server once", "Remove the repetition"),
    (triton("url: grpc://h, urls: [grpc://i]"), "engine.urls", "a list", "either url or urls", "Move engine.url"),
    (triton("shared_memory: gpu"), "engine.shared_memory", "'gpu'", "one of auto, cuda, system, none", "choose one"),
    (triton("headers: {'grpc-x': y}"), "engine.headers.grpc-x", "'grpc-x'", "a header name", "authorization"),
    (triton("headers: {a: ''}"), "engine.headers", "that cannot be a header", "printable ASCII", "Remove line ends"),
    (triton("headers: [a]"), "engine.headers", "a list", "a section of names and texts", "Write, for example, headers"),
    (triton("tls: {server_name: h}"), "engine.tls", "a section", "only with grpcs://", "Write grpcs://"),
    (triton("in_flight: 0"), "engine.in_flight", "0", "auto, or a whole number from 1 to 64", "in_flight: 2"),
    (triton("timeout_s: 0"), "engine.timeout_s", "0", "a number above 0", "timeout_s: 5"),
    (triton("threads: 2"), "engine.threads", "2", "no threads with kind: triton", "served model"),
    (with_section("engine: {kind: 'null', threads: 2}"), "engine.threads", "2", "with kind: 'null'", "Remove threads"),
    (with_section("engine: {kind: null}"), "engine.kind", "nothing", "openvino, onnxruntime, triton, null", "openvino"),
    (with_model("iou: 1", engine="'null'"), "model.name", "nothing", "where no path gives one", "name: yolov8n"),
    (triton("device: CPU"), "engine.device", "'CPU'", "no device with kind: triton", "served model"),
    (triton("repository: ."), "engine.repository", "'.'", "only with engine.managed: true", "managed: true"),
    (triton("managed: true, repository: no"), "engine.repository", "'no'", "a model repository", "Looked"),
    (triton("managed: true, repository: ., url: grpc://h"), "engine.url", "'grpc://h'", "no url with", "us alone"),
    (with_section("engine: {timeout_s: 3}"), "engine.timeout_s", "3", "only with kind: triton", "Write kind: triton"),
    (with_section("engine: {managed: true}"), "engine.managed", "true", "only with kind: triton", "kind: triton"),
    (with_model("path: yolov8n.onnx", "triton"), "model.path", "'yolov8n.onnx'", "no path with", "write name:"),
    (with_model("labels: coco", "triton"), "model.name", "nothing", "the model's name in Triton", "Add"),
    (with_model("path: yolov8n.onnx, version: 1"), "model.version", "1", "only with engine.kind", "Remove the key"),
    (with_section("engine:"), "engine", "nothing", "the keys kind", "such as kind: openvino"),
    (with_section("budget: {fps: 241}"), "budget.fps", "241", "above 0 and up to 240", "fps: 24."),
    (with_section("budget: {fps: .inf}"), "budget.fps", "inf", "above 0 and up to 240", "fps: 24."),
    (with_section("tracking: {algorithm: sort}"), "tracking.algorithm", "'sort'", "bytetrack, ocsort", "'ocsort'?"),
    (with_section("tracking: {algorithm: none, fill: true}"), "tracking.fill", "true", "with a tracker", "bytetrack"),
    # broker
    (with_section("mqtt: {}"), "mqtt.url", "nothing", "mqtt://HOST:1883", "url: mqtt://127.0.0.1:1883"),
    (with_section("mqtt: {url: 'h:1883'}"), "mqtt.url", "'h:1883'", BROKERS, "Begin the address with mqtt://"),
    (with_section("mqtt: {url: 'tcp://h'}"), "mqtt.url", "the kind tcp://", BROKERS, "Did you mean 'mqtt'?"),
    (with_section("mqtt: {url: 'ws://h'}"), "mqtt.url", "the kind ws://", BROKERS, "MQTT listener"),
    (with_section("mqtt: {url: 'mqtt://'}"), "mqtt.url", "without a usable host", BROKERS, "Add the name"),
    (with_section("mqtt: {url: 'mqtt://h:70000'}"), "mqtt.url", "a port", "from 1 to 65535", "Correct the port"),
    (with_section("mqtt: {url: 'mqtt://h/t'}"), "mqtt.url", "a path", BROKERS, "mqtt.prefix"),
    (with_section("mqtt: {url: 'mqtt://u:p@h'}"), "mqtt.url", "a user name or password", BROKERS, "mqtt.password"),
    (with_section("mqtt: {url: 'embedded://10.0.0.1'}"), "mqtt.url", "not this machine's", "127.0.0.1", "mqtt://"),
    (with_section("mqtt: {url: 'mqtt://h', prefix: a/}"), "mqtt.prefix", "'a/'", "separated by '/'", "Leave out"),
    (with_section("mqtt: {url: 'mqtt://h', password: x}"), "mqtt.password", "hidden", "together with", "Add username"),
    (with_section("mqtt: {url: 'mqtt://h', password: 12, username: a}"), "mqtt.password", "hidden", "text", "quotes"),
    (with_section("mqtt: {url: 'mqtt://h', passwort: x}"), "mqtt.passwort", "unknown", "url, prefix", "'password'?"),
    (with_section("mqtt: {url: 'embedded://localhost', username: a}"), "mqtt.username", "'a'", "no user", "Remove"),
    (with_section("mqtt: {url: 'mqtt://h', tls: {}}"), "mqtt.tls", "an empty section", "only with mqtts", "mqtts://"),
    (with_section("mqtt: {url: 'mqtts://h', tls: {ca: no.pem}}"), "mqtt.tls.ca", "'no.pem'", "that exists", LOOKED),
    (with_section("mqtt: {url: 'mqtts://h', tls: {certificate: a.pem}}"), "mqtt.tls.key", "nothing", "private", "Add"),
    (with_section("mqtt: {url: 'mqtts://h', tls: {key: a.pem}}"), "mqtt.tls.key", "'a.pem'", "no key without", "Add"),
    # live streams
    (with_section("rtsp: {listen: '8554'}"), "rtsp.listen", "a port alone", "HOST:PORT", "127.0.0.1: before it"),
    (with_section("rtsp: {listen: box}"), "rtsp.listen", "without a port", "HOST:PORT", "Add one, as in 127.0.0.1"),
    (with_section("rtsp: {listen: 'rtsp://h:1'}"), "rtsp.listen", "with ://", "HOST:PORT", "Remove what stands before"),
    (with_section("rtsp: {listen: 'h:1/x'}"), "rtsp.listen", "more than a host", "HOST:PORT", "alone, as in"),
    (with_section("rtsp: {listen: 'h:99999'}"), "rtsp.listen", "not usable", "1 to 65535", "Correct the port"),
    (with_section("rtsp: {username: a}"), "rtsp.password", "nothing", "username and password together", "Add password"),
    (with_section("rtsp: {password: a}"), "rtsp.password", "hidden", "username and password together", "Add username"),
    (pushed("listen: null"), "rtsp.push", "nothing", "as rtsp.listen is null", "leave the section out"),
    (pushed("listen: null, push: null"), "rtsp.push", "nothing", "an address to push to", "Write where"),
    (pushed("push: 'h:8554/a'"), "rtsp.push", "'h:8554/a'", "rtsp://HOST:8554/{camera}", "push: rtsp://media:8554"),
    (pushed("push: 'rtmp://h/a'"), "rtsp.push", "the kind rtmp://", "rtsp://HOST", "Use the RTSP address"),
    (pushed("push: 'rstp://h/a'"), "rtsp.push", "the kind rstp://", "rtsp://HOST", "Did you mean 'rtsp'?"),
    (pushed("push: 'rtsp://h:8554'"), "rtsp.push", "without a path", "{camera}", "Add the path"),
    (pushed("push: 'rtsp://h:8554?a=b'"), "rtsp.push", "without a path", "{camera}", "Add the path"),
    (pushed("push: 'rtsp:///{camera}'"), "rtsp.push", "without a usable host", "rtsp://HOST", "the media server"),
    (pushed("push: 'rtsp://h:99999/a'"), "rtsp.push", "a port", "from 1 to 65535", "Correct the port"),
    (pushed("push: 'rtsp://u:pa/ss@h/a'"), "rtsp.push", "an '@' behind", "rtsp://USER:PASSWORD", ENCODE),
    (pushed("push: 'rtsp://u:p@h:x/a'"), "rtsp.push", "a port", "from 1 to 65535", ENCODE),
    (pushed("push: 'rtsp://h/a b'"), "rtsp.push", "'rtsp://h/a b'", "without blanks", "%20"),
    (pushed("push: 'rtsp://h/{cam}'"), "rtsp.push", "'rtsp://h/{cam}'", "no placeholder but", "no other braces"),
    (pushed("push: 'rtsp://{camera}/a'"), "rtsp.push", "before the path", "rtsp://HOST", "behind the host"),
    (pushed("push: 'rtsp://u:{camera}@h/a'"), "rtsp.push", "before the path", "rtsp://HOST", "behind the host"),
    (pushed("push: 'rtsp://127.0.0.1:8554/a'"), "rtsp.push", "of rtsp.listen", "another server's", "listen: null to"),
    (pushed("push: 'rtsp://LocalHost:8554/a'"), "rtsp.push", "of rtsp.listen", "another server's", "another port"),
    (
        pushed("listen: '0.0.0.0:554', push: 'rtsp://[::1]/a'"),
        "rtsp.push",
        "the address of rtsp.listen",
        "another server's address",
        "8554 is the usual one of both",
    ),
    (
        pushed("listen: 'Box:322', push: 'rtsps://box/a'"),
        "rtsp.push",
        "the address of rtsp.listen",
        "another server's address",
        "listen: null",
    ),
    (
        with_section("cameras: {a: {url: a.mp4}, b: {url: b.mp4}}\nrtsp: {push: 'rtsp://h/x'}"),
        "rtsp.push",
        "'rtsp://h/x'",
        "{camera} in the address, for 2 cameras",
        "an address of its own",
    ),
    (pushed("push: 'rtsp://h/a', listen: null, username: a, password: b"), "rtsp.username", "'a'", "only", "turns off"),
    (pushed("push: 'rtsp://h/a', listen: null, raw: true"), "rtsp.raw", "true", "raw only with", "Remove the key"),
    (camera("url: a.mp4, username: a, password: b"), "cameras.gate.username", "'a'", "only with an rtsp", "Remove"),
    (camera("url: 'rtsp://u:p@h/', username: a, password: b"), "cameras.gate.username", "'a'", "in url", "Remove user"),
    (camera("url: 'rtsp://h/', username: a"), "cameras.gate.password", "nothing", "together", "Add password: to the"),
    (camera("url: a.mp4, decode: some"), "cameras.gate.decode", "'some'", "all, nonref, keyframes", "choose one"),
    (camera("url: a.mp4, sample_fps: 0"), "cameras.gate.sample_fps", "0", "above 0 and up to 240", "sample_fps: 5"),
    # outputs
    (with_section("file: {path: '{cam}.jsonl'}"), "file.path", "'{cam}.jsonl'", "no placeholder but", "{camera}"),
    (with_section("file: {path: /dev/null/x}"), "file.path", "'/dev/null/x'", "parents are directories", "choose"),
    (with_section("file: {path: /tmp}"), "file.path", "a directory", "a file to write", "Add a file name"),
    (with_section("file: {path: ''}"), "file.path", "empty text", "a file to write", "out/detections.jsonl"),
    (with_section("video: {path: x.avi}"), "video.path", "'x.avi'", ".mp4 or .mkv", "out/{camera}.mp4"),
    (
        with_section("cameras: {a: {url: a.mp4}, b: {url: b.mp4}}\nvideo: {path: x.mp4}"),
        "video.path",
        "'x.mp4'",
        "{camera} in the path, for 2 cameras",
        "a file of its own",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "key", "found", "expected", "remedy"), [*YAML_ONLY, *VALUES])
def test_bad_value(folder: Path, text: str, key: str, found: str, expected: str, remedy: str) -> None:
    (problem,) = [problem for problem in problems(folder, text) if problem.key == key]
    assert found in problem.found
    assert expected in problem.expected
    assert remedy in problem.remedy
    assert problem.remedy.endswith((".", "?"))


def test_one_mistake_is_one_problem(folder: Path) -> None:
    several = [(row[0], found) for row in [*YAML_ONLY, *VALUES] if len(found := problems(folder, row[0])) > 1]
    assert several == []


def test_missing_file_names_both_places(folder: Path) -> None:
    (problem,) = problems(folder, camera("url: no.mp4"))
    assert f"Looked next to the configuration ({folder}) and in the working directory ({Path.cwd()})" in problem.remedy


def test_same_camera_twice(folder: Path) -> None:
    text = with_section("cameras:\n  gate: {url: 'rtsp://h/a'}\n  yard: {url: 'rtsp://h/b'}\n  gate: {url: a.mp4}")
    (problem,) = problems(folder, text)
    assert problem.key == "cameras.gate"
    assert problem.found == "this key twice, on lines 3 and 5"


def test_everything_at_once(folder: Path) -> None:
    text = """
sight: x
engine: {kind: tflite, threads: 0}
model: {path: m.pt, confidence: 2, labels: [person, car]}
mqtt: {url: http://h, password: x, tls: {ca: no.pem}}
video: {path: "{cam}.mp4"}
cameras:
  status: {url: no.mp4}
  gate: {url: "rtsp://u:${GATE}@h/", loop: true, classes: [persn]}
  gate: {url: x}
"""
    found = problems(folder, text)
    assert [problem.key for problem in found] == [
        "cameras.gate",
        "cameras.gate.url",
        "engine.kind",
        "engine.threads",
        "model.path",
        "model.confidence",
        "mqtt.url",
        "mqtt.password",
        "mqtt.tls.ca",
        "video.path",
        "cameras.status",
        "cameras.status.url",
        "cameras.gate.loop",
        "cameras.gate.classes[0]",
        "sight",
    ]
    with pytest.raises(ConfigError, match="15 problems"):
        load(folder, text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    secret=st.text(alphabet="ξψЖ@/?#:% &", min_size=3, max_size=12).filter(lambda text: "ξ" in text),
    text=st.sampled_from([row[0] for row in VALUES]),
    data=st.data(),
)
def test_no_message_quotes_the_environment(folder: Path, secret: str, text: str, data: st.DataObject) -> None:
    """Whatever text value of a bad configuration comes from the environment, its content is told nowhere."""
    tree = yaml.safe_load(text)
    leaves = [path for path, value in walk(tree) if isinstance(value, str)]
    put(tree, data.draw(st.sampled_from(leaves)), "${SECRET}")
    said = ""
    try:
        load(folder, yaml.safe_dump(tree), {"SECRET": secret})
    except ConfigError as error:
        said = str(error)
    assert "ξ" not in said


def walk(tree: object, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], object]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [(path, tree), *(found for key, item in items for found in walk(item, (*path, key)))]


def put(tree: Any, path: tuple[str | int, ...], value: object) -> None:
    for step in path[:-1]:
        tree = tree[step]
    tree[path[-1]] = value
