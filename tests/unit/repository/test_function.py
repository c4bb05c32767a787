"""Finding a function, and copying what it is made of."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from streamproc.errors import ConfigError, ModelError
from streamproc.repository.function import Function, copy_function, find_function, parse_target
from streamproc.repository.function_probe import probe
from tests.unit.repository.functions import save_module


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, in which modules are found."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "text", ["", "plates", "plates:", ":tidy", "plates.py", "a/b.py:tidy", "a..b:c", "a:b:c", "a:b c"]
)
def test_targets_of_another_form(text: str) -> None:
    with pytest.raises(ConfigError, match=r"python: found .*; expected module:function"):
        parse_target(text)


def test_a_function_of_a_file_with_its_neighbours(here: Path) -> None:
    save_module(
        here, "plates.py", "import helpers, parts.tools\ndef tidy(text):\n    'Clean up.'\n    return text\nprint('hi')"
    )
    save_module(here, "helpers.py", "import json")
    save_module(here, "parts/__init__.py", "")
    save_module(here, "parts/tools.py", "")
    save_module(here, "other.py", "")
    found = find_function("plates", "tidy", inputs=1)
    assert str(found) == "plates:tidy"
    assert found.file == here / "plates.py"
    assert found.parts == (here / "helpers.py", here / "parts", here / "plates.py")
    assert found.description == "Clean up."


def test_a_function_of_a_package_on_the_path(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_module(here, "library/tools/inner/plates.py", "from tools.inner import spare\ndef tidy(*arrays): ...")
    save_module(here, "library/tools/inner/spare.py", "")
    monkeypatch.setenv("PYTHONPATH", str(here / "library"))
    found = find_function("tools.inner.plates", "tidy", inputs=3)
    assert found.parts == (here / "library" / "tools",)
    assert found.description == ""


def test_a_process_that_does_not_survive_the_import(here: Path) -> None:
    save_module(here, "plates.py", "import os, sys\nprint('no space', file=sys.stderr, flush=True)\nos._exit(3)")
    with pytest.raises(ModelError, match=r"plates:tidy: importing the module ended the process with code 3\. no"):
        find_function("plates", "tidy", inputs=1)


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        ("absent_module", "tidy", "there is no module absent_module. It is looked for in the current directory and"),
        ("json.absent", "tidy", "there is no module json.absent"),
        ("json", "tidy", r"it has no tidy; it has .*load, .*Correct the name"),
        ("string", "digits", "digits is of type str; expected a function"),
        ("shutil", "copy", r"it takes \(src, dst, .*\), but 1 input is declared: missing a required argument: 'dst'"),
        ("sys", "getsizeof", "it has no Python source that could be copied"),
        ("contextlib", "contextmanager", None),
    ],
)
def test_what_the_probe_finds(module: str, name: str, said: str | None) -> None:
    found = probe(module, name, 1)
    if said is None:
        assert len(found["parts"]) == 1, "installed modules are copied without their neighbours"
    else:
        assert re.search(said, found["problem"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import not_there", r"ModuleNotFoundError: No module named 'not_there' \(.*faulty.py, line 1\). Install what"),
        ("\nfrom json import nought", r"ImportError: cannot import name 'nought'.* \(.*faulty.py, line 2\). Install"),
        ("x = 1 / 0", r"ZeroDivisionError: division by zero \(.*faulty.py, line 1\). Correct the module"),
        ("def (", r"SyntaxError: invalid syntax \(faulty.py, line 1\). Correct the module"),
        ("raise SystemExit('no')", r"importing it failed with SystemExit: no"),
        ("async def tidy(text): ...", "tidy is a coroutine or generator; expected a plain function"),
        ("def tidy(text): yield text", "tidy is a coroutine or generator; expected a plain function"),
        ("def tidy(): ...", r"it takes \(\), but 1 input is declared: too many positional arguments"),
        ("_tidy = 1", "it has no tidy; it has nothing that can be called"),
    ],
)
def test_modules_with_faults(here: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    save_module(here, "faulty.py", text)
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    assert re.search(said, probe("faulty", "tidy", 1)["problem"])
    monkeypatch.delitem(sys.modules, "faulty", raising=False)


def test_copies_have_neither_caches_nor_the_repository_in_them(tmp_path: Path) -> None:
    package = tmp_path / "package"
    kept = ("__init__.py", "weights.npz", "deep/module.py")
    for name in (*kept, "__pycache__/x.pyc", ".git/config", "models/m/1/model.py"):
        save_module(package, name, name)
    alone = save_module(tmp_path, "alone.py", "")
    function = Function(
        module="package", name="f", file=package / "__init__.py", parts=(alone, package), description=""
    )
    copy_function(function, tmp_path / "copy", leave_out=package / "models")
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert copied == {"alone.py", *(f"package/{name}" for name in kept)}
