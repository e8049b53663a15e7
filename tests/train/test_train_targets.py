"""TARGETs: bundled names, files and modules, from anywhere, and what is refused."""

import os
import sys
from pathlib import Path

import pytest

from codegen.targets import bundled_names, load_target
from engine.errors import TargetError

SOURCE = """
from torch import nn

import neighbour

PI = 3


def forward(x):
    return x + neighbour.ONE


def other(x):
    return x


class Net(nn.Module):
    def forward(self, x):
        return x * 2


class Sized(nn.Module):
    def __init__(self, size):
        super().__init__()


class Plain:
    @staticmethod
    def inner(x):
        return x


net = Net()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("ONE = 1\n")
    path = tmp_path / "my-model.py"
    path.write_text(SOURCE)
    sys.modules.pop("neighbour", None)
    return path


def test_bundled() -> None:
    assert "mlp" in bundled_names()
    assert all(callable(load_target(name).forward) for name in bundled_names())
    target = load_target("mlp")
    assert (target.name, target.bundled) == ("mlp", True)
    assert target.path is not None
    assert target.path.name == "mlp.py"


@pytest.mark.parametrize(
    ("attribute", "name", "argument", "result"),
    [
        ("", "my_model", 2, 3),
        (":forward", "my_model", 2, 3),
        (":other", "other", 2, 2),
        (":Net", "Net", 2, 4),
        (":net", "net", 2, 4),
        (":Plain.inner", "Plain_inner", 2, 2),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, attribute: str, name: str, argument: int, result: int, relative: bool
) -> None:
    monkeypatch.chdir(file.parent if relative else "/")
    path = sys.path.copy()
    target = load_target(f"{file.name if relative else file}{attribute}")
    assert (target.name, target.path, target.bundled) == (name, file.resolve(), False)
    assert target.forward(argument) == result
    assert sys.path == path


def test_a_file_is_read_anew(file: Path) -> None:
    assert load_target(f"{file}:other").forward(1) == 1
    stat = file.stat()
    file.write_text(SOURCE.replace("return x\n\n\nclass Net", "return 9\n\n\nclass Net"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_target(f"{file}:other").forward(1) == 9
    assert not (file.parent / "__pycache__" / "my-model.cpython-311.pyc").exists()


def test_module(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_package_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    assert load_target("some_package_of_mine.nets:other").name == "other"
    assert load_target("some_package_of_mine.nets:Net").forward(2) == 4
    assert load_target("some_package_of_mine.nets:").name == "nets"
    for name in [name for name in sys.modules if name.startswith("some_package_of_mine")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mpl", "no bundled forward is named 'mpl'. Did you mean 'mlp'?.*Bundled: .*mlp"),
        ("", "no bundled forward"),
        ("absent.py", r"no file .*absent\.py"),
        ("absent.py:f", r"no file .*absent\.py"),
        ("no_such_module_here:f", "no module named 'no_such_module_here'"),
        ("os.nothing:f", "no module named 'os.nothing'|not a package"),
        ("not a module:f", "is not a dotted module name"),
        (":f", "is not a dotted module name"),
        ("os:absent", "has nothing named 'absent'"),
        ("os:sep", "is a str, not a function"),
        ("os:PathLike", "is the class PathLike, which is not an nn.Module"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        load_target(text)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (":absent", "has nothing named 'absent'. Name one that it has: :forward, :other, :Net"),
        (":PI", "PI is a int, not a function"),
        (":Sized", "cannot be made without arguments"),
        (":Plain", "is the class Plain"),
        (":Plain.absent", "has nothing named 'Plain.absent'"),
    ],
)
def test_refused_in_a_file(file: Path, attribute: str, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        load_target(f"{file}{attribute}")
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ndef forward(x:\n    return x\n", r"model.py:2: syntax error"),
        ("import torch\n\n1 / 0\n", "model.py:3: ZeroDivisionError: division by zero"),
        ("import a_package_nobody_has\n", "model.py:1: ModuleNotFoundError"),
        ("def load():\n    raise ValueError('no weights')\n\nload()\n", "model.py:2: ValueError: no weights"),
        ("import sys\nsys.exit(3)\n", "model.py:2: SystemExit: 3"),
        ("x = 1\n", "has nothing named 'forward', and defines no function"),
        ("def f(x):\n    return x\n", "has no function named 'forward'. Name one that it has: :f"),
        ("def forward(x):\n  return x\n return y\n", "model.py:3: syntax error"),
    ],
)
def test_files_that_do_not_load(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "model.py"
    path.write_text(source)
    with pytest.raises(TargetError, match=message) as caught:
        load_target(str(path))
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_bytes(b"\0\1\2\xff")
    with pytest.raises(TargetError, match=r"model\.py"):
        load_target(str(path))
    path.unlink()
    path.mkdir()
    with pytest.raises(TargetError, match="cannot read"):
        load_target(str(path))
