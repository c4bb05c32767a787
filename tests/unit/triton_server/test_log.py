"""What a log says about a start that failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamproc.triton_server.log import LogReader, explain_failure, progress_of

BROKEN_MODEL = """
I1121 00:32:18.166276 1058 server.cc:674] 
+-------+---------+----------------------------------------------+
| Model | Version | Status                                       |
+-------+---------+----------------------------------------------+
| bad   | 1       | UNAVAILABLE: Internal: RuntimeError: no luck |
|       |         |                                              |
|       |         | At:                                          |
|       |         |   /models/bad/1/model.py(1): <module>        |
| good  | 1       | READY                                        |
+-------+---------+----------------------------------------------+

| Option | Value |
I1121 00:32:21.168598 1058 server.cc:345] "Timeout 27: Found 0 live models and 0 in-flight non-inference requests"
error: creating server: Internal - failed to load all models
"""  # noqa: W291  # as it stands in the log


def test_a_model_that_did_not_load() -> None:
    assert explain_failure(BROKEN_MODEL).splitlines() == [
        "model bad version 1: UNAVAILABLE: Internal: RuntimeError: no luck",
        "  At:",
        "    /models/bad/1/model.py(1): <module>",
        "error: creating server: Internal - failed to load all models",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "E1121 00:32:23.378110 1777 main.cc:245] \"failed to start GRPC service: Unavailable - Socket '0.0.0.0:1' "
            'already in use "',
            "failed to start GRPC service: Unavailable - Socket '0.0.0.0:1' already in use ",
        ),
        (
            "E1121 00:32:22.216483 1662 manager.cc:1415] \"failed to poll model 'x': model not found\"",
            "failed to poll model 'x': model not found",
        ),
        ("tritonserver: unrecognized option '--new=1'", "tritonserver: unrecognized option '--new=1'"),
        ("docker: invalid reference format.", "docker: invalid reference format."),
    ],
)
def test_other_ends(line: str, said: str) -> None:
    assert explain_failure(f"I1121 00:32:22.2 1662 server.cc:604] \n{line}\nUsage: tritonserver [options]\n") == said


def test_what_is_not_understood_is_shown_as_it_is() -> None:
    assert explain_failure("one\n\ntwo\n") == "one\ntwo"
    assert explain_failure("") == "it said nothing"


def test_progress() -> None:
    where = "I1121 00:24:54.496268 30213 model_lifecycle.cc:472] "
    assert progress_of(where + '"loading: yolov8n:12"') == "loading yolov8n version 12"
    assert progress_of(where + "\"successfully loaded 'yolov8n'\"") == "loaded yolov8n"
    assert progress_of(where + '"Collecting CPU metrics"') is None


def test_a_log_is_read_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("one\ntw")
    reader = LogReader(path)
    assert list(reader.lines()) == ["one"]
    with path.open("a") as file:
        file.write("o\nthree\n")
    assert list(reader.lines()) == ["two", "three"]
    assert list(reader.lines()) == []
