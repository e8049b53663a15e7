"""`codegen.build`: the same bytes under any hash seed, whole files or none, and only where something changes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import codegen.build as build_module
from codegen.build import ARTIFACTS, HOME, STAMP, Built, build, build_all, default_targets, leftovers, load_module
from codegen.targets import bundled_names
from engine.errors import InputError, OutputError, SymgradError, TargetError, TraceError

ROOT = Path(__file__).parents[2]
SEVERAL = """
import torch

def example_inputs(generator):
    return {"x": torch.randn(4, 3, generator=generator), "w": torch.randn(3, generator=generator)}

def scaled(x, w):
    return (x * w).tanh()

def squared(x):
    return x.square().sum(0)

def other(z):
    return z
"""
ANNOTATED = """
from jaxtyping import Float, Int
from torch import Tensor

def pick(table: Float[Tensor, "rows width"], at: Int[Tensor, "n two"]):
    got = table[at.flatten()]
    return got.sum(1)
"""


def test_the_committed_files_are_up_to_date() -> None:
    built = build_all()
    assert [str(b.path) for b in built if b.stale] == []
    assert leftovers(built) == []
    assert {b.path.parent.name for b in built} == {"generated", *default_targets()}


def test_every_bundled_forward_with_inputs_is_built() -> None:
    assert {
        "mlp", "batchnorm", "batchnorm_eps", "batchnorm_projection", "batchnorm_v_to_x", "batchnorm_o_to_v", "batchnorm_o_to_x",
    } <= {*default_targets()}  # fmt: skip
    with_inputs = [n for n in bundled_names() if hasattr(load_module(n), "example_inputs")]
    assert sorted(default_targets()) == sorted(with_inputs)


BYTES = """
import hashlib, sys
from codegen.build import build
digest = hashlib.sha256()
for name in ("mlp", "attention"):
    for b in build(name):
        digest.update(b.text.encode())
print(digest.hexdigest())
"""


def test_hash_seeds_give_the_same_bytes() -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", BYTES],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)},
        )
        for seed in (0, 42, 4_294_967_295)
    ]  # fmt: skip
    digests = [run.communicate()[0].strip() for run in runs]
    assert all(run.returncode == 0 for run in runs)
    assert len({*digests}) == 1
    assert len(digests[0]) == 64


def test_the_working_directory_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = [b.text for b in build("layernorm")]
    monkeypatch.chdir(tmp_path)
    assert [b.text for b in build("layernorm")] == here


def test_a_file_with_several_forwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "several.py").write_text(SEVERAL)
    monkeypatch.chdir(tmp_path)
    for name in ("scaled", "squared"):
        built = build(f"several.py:{name}")
        files = [a.name for a in ARTIFACTS if a.name != "loop.py"]  # the module does not say how its parameters begin
        assert [b.path for b in built] == [Path("generated") / name / file for file in files]
        assert all(b.present is None and b.stale for b in built)
        steps = next(b for b in built if b.path.name == "steps.py")
        assert steps.text.startswith(f"# {STAMP} several.py:{name}`")
        assert str(tmp_path) not in "".join(b.text for b in built)
    with pytest.raises(TargetError, match="takes z, which example_inputs does not make; it makes x, w"):
        build("several.py:other")


def test_annotations_instead_of_example_inputs(tmp_path: Path) -> None:
    (tmp_path / "annotated.py").write_text(ANNOTATED)
    texts = {b.path.name: b.text for b in build(f"{tmp_path / 'annotated.py'}:pick", tmp_path / "out")}
    assert "- `table`: float32 `(rows, width)`" in texts["derivation.md"]
    assert "index_put_" in texts["steps.py"]


def test_neither_inputs_nor_annotations(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text("def forward(x):\n    return x\n")
    with pytest.raises(TargetError, match=r"has no example inputs: .*jaxtyping"):
        build(str(tmp_path / "bare.py"))


def test_a_forward_that_fails_by_itself_is_located(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(
        "import torch\ndef example_inputs(g):\n    return {'x': torch.ones(2)}\ndef forward(x):\n    return x * undefined\n"
    )
    with pytest.raises(TargetError, match=r"broken.py:5: NameError: name 'undefined' is not defined"):
        build(str(path))
    path.write_text(
        "import torch\ndef example_inputs(g):\n    return {'x': torch.ones(2)}\ndef forward(x):\n    return x * x.item()\n"
    )
    with pytest.raises(TraceError, match="item"):
        build(str(path))


MISTAKES = {
    "return x.tanhh()": r"broken.py:5: AttributeError: 'Tensor' object has no attribute 'tanhh'",
    "return torch.tanhh(x)": r"broken.py:5: AttributeError: module 'torch' has no attribute",
    "return x.sum(dims=1)": r"broken.py:5: TypeError: sum\(\) received",
    "assert x.shape[0] == 5, 'five rows'; return x": r"broken.py:5: AssertionError: five rows",
    "a, b, c, d = x; return a": r"broken.py:5: ValueError: not enough values",
    "return x.sum(5)": r"^sum on shapes \(3, 2\) at broken.py:5: Dimension out of range",
    "return x @ x": r"^matmul on shapes \(3, 2\) at broken.py:5",
    "return x * x.sum().item()": r"^item\(\) reads a tensor's value at broken.py:5",
    "return x if x.sum() > 0 else -x": r"^Python control flow depends on a tensor's value at broken.py:5",
    "return torch.linalg.svd(x)[1]": r"^op 'linalg_svd' is not in the op table, at broken.py:5",
    "y = x.sum(); y.backward(); return y": r"^backward\(\) at broken.py:5: return the loss",
    "return forward(x)": r"^forward 'forward' calls deeper than Python goes, at broken.py:[45]",
    "print(f'{x.sum():.3f}'); return x": r"^__format__\(\) reads a tensor's value at broken.py:5",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_what_is_wrong_with_an_annotated_forward(line: str, tmp_path: Path) -> None:
    """The annotations are fine, and the message is not about them."""
    text = f'import torch\nfrom jaxtyping import Float\n\ndef forward(x: Float[torch.Tensor, "3 2"]):\n    {line}\n'
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(SymgradError, match=MISTAKES[line]) as error:
        build(str(tmp_path / "broken.py"))
    assert "jaxtyping" not in str(error.value)


def test_nothing_to_differentiate(tmp_path: Path) -> None:
    text = 'import torch\nfrom jaxtyping import Int\n\ndef forward(x: Int[torch.Tensor, "3"]):\n    return x * 2\n'
    (tmp_path / "whole.py").write_text(text)
    with pytest.raises(InputError, match=r"nothing to differentiate: none of its inputs \(x int64\)"):
        build(str(tmp_path / "whole.py"))


def test_files_are_written_only_if_they_change(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.py"
    assert Built(path, "a = 1\n", None).write()
    before = path.stat()
    assert not Built(path, "a = 1\n", "a = 1\n").write()
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert Built(path, "a = 2\n", "a = 1\n").write()
    assert path.read_text() == "a = 2\n"
    assert [p.name for p in path.parent.iterdir()] == ["file.py"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.py"
    path.write_text("old\n")

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match=r"cannot write .*file.py: Permission denied. It is as it was"):
        Built(path, "new\n", "old\n").write()
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["file.py"]


def test_the_diff_is_a_unified_diff(tmp_path: Path) -> None:
    diff = Built(tmp_path / "f.py", "a\nB\n", "a\nb\n").diff()
    assert "-b\n" in diff
    assert "+B\n" in diff
    assert diff.startswith("---")


def test_what_no_target_makes_is_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "HOME", tmp_path)
    old, own = tmp_path / "gone" / "steps.py", tmp_path / "gone" / "mine.py"
    old.parent.mkdir()
    old.write_text(f"# {STAMP} gone`; change the forward, not this file.\n")
    own.write_text("x = 1\n")
    assert leftovers([]) == [old]
    assert HOME.name == "generated"
