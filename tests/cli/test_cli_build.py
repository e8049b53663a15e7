"""`codegen build`: where files go, what --check says, and the exit codes."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Command


def imported(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(f"emitted_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_target_of_ones_own(command: Command, recipe: Path, tmp_path: Path) -> None:
    done = command("build", "recipe.py:forward")
    assert (done.code, done.err) == (0, "")
    folder = tmp_path / "generated" / "recipe"
    assert {"__init__.py", "steps.py", "derivation.md"} <= {p.name for p in folder.iterdir()}
    assert f"wrote {Path('generated/recipe/steps.py')}" in done.out
    module = imported(folder / "steps.py")
    x, w = torch.randn(5, 4, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    loss, saved = module.forward(x, w.detach())  # type: ignore[attr-defined]
    (x @ w).tanh().square().mean().backward()
    torch.testing.assert_close(module.backward(saved)["w"], w.grad)  # type: ignore[attr-defined]
    assert loss.dtype == torch.float64


def test_a_second_build_writes_nothing(command: Command, recipe: Path) -> None:
    assert "wrote" in command("build", recipe).out
    done = command("build", recipe)
    assert "wrote" not in done.out
    assert "are up to date" in done.out


def test_check_shows_a_diff_and_exits_1(command: Command, recipe: Path, tmp_path: Path) -> None:
    command("build", "recipe.py", "--out", "emitted")
    assert command("build", "recipe.py", "--out", "emitted", "--check").code == 0
    recipe.write_text(recipe.read_text().replace("tanh", "sin"))
    done = command("build", "recipe.py", "--out", "emitted", "--check")
    assert done.code == 1
    assert "-    p = h.tanh()\n" in done.out
    assert "+    p = h.sin()\n" in done.out
    assert "files are stale. Run codegen build." in done.out
    assert "tanh" in (tmp_path / "emitted" / "steps.py").read_text()


def test_check_of_what_was_never_built(command: Command, recipe: Path, tmp_path: Path) -> None:
    assert command("build", recipe, "--check").code == 1
    assert not (tmp_path / "generated").exists()


def test_the_committed_files_pass_from_any_folder(command: Command) -> None:
    """All of them are built by tests/codegen/test_build.py."""
    assert command("build", "--check", "layernorm", "tanh_layer").code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere",), "no bundled forward is named 'nowhere'"),
        (("batchnrm",), "Did you mean 'batchnorm'?"),
        (("missing.py:f",), "no file"),
        (("recipe.py:nothing",), "has nothing named 'nothing'"),
        (("mlp", "layernorm", "--out", "x"), "--out takes the files of one TARGET, and 2 were asked for"),
        (("--out", "x"), "--out takes the files of one TARGET, and all bundled ones were asked for"),
    ],
)
def test_what_cannot_be_built(command: Command, recipe: Path, args: tuple[str, ...], message: str) -> None:
    done = command("build", *args)
    assert done.code == 2
    assert message in done.err


def test_one_bad_target_writes_nothing(command: Command, recipe: Path, tmp_path: Path) -> None:
    assert command("build", "recipe.py", "nowhere").code == 2
    assert not (tmp_path / "generated").exists()


def test_classes_of_one_file_have_their_own_example_inputs(command: Command, tmp_path: Path) -> None:
    head = "import torch\nfrom torch import nn\n"
    for name, layer, shape in (("A", "nn.Linear(3, 2)", "4, 3"), ("B", "nn.Conv2d(1, 2, 2)", "4, 1, 3, 3")):
        head += (
            f"\nclass {name}(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.layer = {layer}\n"
            f"    def forward(self, x):\n        return self.layer(x).sum()\n"
            f"    @staticmethod\n    def example_inputs(g):\n        return {{'x': torch.randn({shape}, generator=g)}}\n"
        )
    (tmp_path / "models.py").write_text(head)
    for name in ("A", "B"):
        done = command("build", f"models.py:{name}", "--out", tmp_path / name)
        assert done.code == 0, done.err
        assert (tmp_path / name / "closed.py").exists()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("(g):\n    return torch.randn(3, 2), torch.ones(2)", ""),
        ("():\n    return {'w': torch.ones(2), 'x': torch.randn(3, 2)}", ""),
        (
            "(g):\n    return torch.randn(3, 2), torch.ones(2), torch.ones(1)",
            "takes x, w; example_inputs makes 3 tensors",
        ),
        ("(g):\n    return [torch.randn(3, 2)]", "takes w, which example_inputs does not make"),
        ("(g):\n    return {'x': [1.0], 'w': torch.ones(2)}", "has to return a dict of tensors by name"),
        ("(g):\n    return None", "has to return a dict of tensors by name"),
    ],
)
def test_example_inputs_by_name_or_in_order(made: str, said: str, command: Command, tmp_path: Path) -> None:
    text = f"import torch\n\ndef example_inputs{made}\n\ndef forward(x, w):\n    return (x * w).sum()\n"
    (tmp_path / "own.py").write_text(text)
    done = command("build", "own.py")
    assert done.code == (2 if said else 0)
    assert said in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_an_unknown_op_names_op_file_line_and_remedy(command: Command, tmp_path: Path) -> None:
    (tmp_path / "unknown.py").write_text(
        "import torch\n\ndef example_inputs(g):\n    return {'x': torch.randn(3, 3)}\n\n"
        "def forward(x):\n    return torch.linalg.svdvals(x)\n"
    )
    done = command("build", "unknown.py")
    assert done.code == 2
    assert "svdvals" in done.err
    assert "unknown.py:7" in done.err
    assert "Traceback" not in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(command: Command, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    done = command("build", recipe, "--out", folder / "deep")
    assert done.code == 2
    assert "cannot write" in done.err


def test_a_file_in_the_way(command: Command, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine\n")
    done = command("build", recipe, "--out", tmp_path / "taken")
    assert done.code == 2
    assert "taken" in done.err
    assert (tmp_path / "taken").read_text() == "mine\n"


@pytest.mark.parametrize("name", ["build", "inspect", "check"])
def test_help_shows_examples_and_exit_codes(command: Command, name: str) -> None:
    done = command(name, "--help")
    assert done.code == 0
    assert "Exit codes" in done.out
    assert f"codegen {name} mlp" in done.out or f"codegen {name}" in done.out
    assert "TARGET" in done.out


def test_a_loop_for_other_sizes_and_without_kernels(command: Command, tmp_path: Path) -> None:
    sizes = "batch=8,w1=30x40,w2=40x27,bnw=40,bnb=40"
    losses: list[torch.Tensor] = []
    for options in ((), ("--plain",)):
        folder = tmp_path / f"emitted{len(options)}"
        assert command("build", "mlp", "--sizes", sizes, *options, "--out", folder).code == 0
        text = (folder / "loop.py").read_text()
        assert "for batches of 8" in text
        assert '"w1": ("torch.float32", 30, 40),' in text
        assert ("native_batch_norm" in text) is not bool(options)
        g = torch.Generator().manual_seed(0)
        shapes = {"C": (27, 10), "w1": (30, 40), "w2": (40, 27), "b2": (27,), "bnw": (40,), "bnb": (40,)}
        params = {k: torch.randn(s, generator=g) for k, s in shapes.items()}
        data = torch.randint(0, 27, (99, 3), generator=g), torch.randint(0, 27, (99,), generator=g)
        losses.append(imported(folder / "loop.py").trainer(params)(data, 20, 0.1, g))  # type: ignore[attr-defined]
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("w1=40", "fails"),
        ("nothing=3", "'nothing' is no input of mlp; those are batch, x, y, C, w1"),
        ("w1", "'w1' is not NAME=SIZExSIZE"),
        ("batch=2x3", "batch is one number"),
        ("y=5", "both begin with the rows of a batch"),
    ],
)
def test_sizes_that_cannot_be(command: Command, tmp_path: Path, sizes: str, message: str) -> None:
    done = command("build", "mlp", "--sizes", sizes, "--out", tmp_path / "emitted")
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert not (tmp_path / "emitted").exists()
