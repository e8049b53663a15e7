"""What may import what, and what must not be in the tree."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("engine", "codegen", "generated", "examples", "benchmarks", "tests", "typings", ".ci")
TEXT = {".py", ".pyi", ".j2", ".md", ".toml", ".txt", ".cfg", ".json", ""}


def python_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def tree() -> list[Path]:
    """Every text file of the project, without what tools leave behind."""
    found = [p for folder in SOURCES for p in (ROOT / folder).rglob("*") if "__pycache__" not in p.parts]
    found += ROOT.glob("*")
    return sorted(p for p in found if p.is_file() and p.suffix in TEXT and p.name != ".git")


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The modules that a file imports anywhere in it, with their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), node.lineno


def offences(package: str, allowed: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in python_files(package)
        for module, line in imported(path)
        if not allowed.fullmatch(module)
    ]


def test_the_engine_knows_neither_templates_nor_the_generator() -> None:
    assert offences("engine", re.compile(r"(?!(jinja2|codegen|generated|examples)\b).*")) == []


def test_importing_the_engine_loads_neither() -> None:
    code = "import sys, engine, engine.draw, engine.value; print({'jinja2', 'codegen'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


def test_a_loop_over_large_batches_is_made_without_torchs_compiler() -> None:
    """Its import takes longer than all else that is done before the first step."""
    code = """
import sys, torch, codegen
from torch.nn import functional as F

def forward(x, y, w, g):
    h = x @ w
    h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt() * g
    return F.cross_entropy(h.tanh(), y)

x, y = torch.randn(1100, 6), torch.randint(0, 4, (1100,))
w, g = torch.randn(6, 4), torch.ones(4)
trainer = codegen.generate(forward, x, y, w, g).trainer({"w": w, "g": g}, batch_size=1100, lr=0.1)
trainer.run((x, y), steps=1)
print(trainer.path, "torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "the emitted loop False"


def test_generated_files_import_only_torch() -> None:
    allowed = re.compile(r"torch(\.\w+)*|__future__|typing|math")
    assert offences("generated", allowed) == []


def test_the_generator_knows_no_generated_file() -> None:
    assert offences("codegen", re.compile(r"(?!generated\b).*")) == []


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a note to do something later", r"\b([T]ODO|[F]IXME|[X]XX)\b"),
        ("a path of somebody's machine", r"(?<![\w.])/(home|Users|root|work|mnt|opt)/\w"),
    ],
)
def test_the_tree_is_free_of(what: str, pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tree()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == [], what


def test_the_tree_is_looked_at() -> None:
    names = {p.relative_to(ROOT).as_posix() for p in tree()}
    assert {"README.md", "pyproject.toml", ".ci/run", "engine/value.py", "tests/test_architecture.py"} <= names
