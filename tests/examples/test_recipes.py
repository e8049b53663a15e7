"""The bundled recipes train: the emitted loop against autograd on data that ships or is made, and what each measures."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator

from codegen.cli import main
from codegen.targets import load_target
from codegen.train.checkpoint import read_checkpoint
from codegen.train.data import bundled_path, load_dataset
from codegen.train.recipe import RowKind, recipe_of

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run `codegen ARGS` in an empty folder; its exit code and everything it printed."""

    def run(*args: object) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["codegen", *map(str, args)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(bundled_path().read_text().splitlines()[::100]) + "\n")
    return path


@pytest.mark.parametrize("name", ["deep_mlp", "moons", "transformer", "digits"])
def test_the_emitted_loop_is_autograd(name: str, command: Command, names: Path, tmp_path: Path) -> None:
    if name == "digits":
        pytest.importorskip("sklearn")
    data = ("--data", names) if name in ("deep_mlp", "transformer") else ()
    given = ("--steps", 12, "--dtype", "float64", "--backward", "both", "--samples", 2, "--out", tmp_path / "run")
    code, printed = command("train", name, *data, *given)
    assert code == 0, printed
    found = read_checkpoint(tmp_path / "run")
    assert found.tensors["difference"] < 1e-11
    torch.testing.assert_close(found.group("params"), found.group("twin.params"), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.group("buffers"), found.group("twin.buffers"), rtol=1e-9, atol=1e-11)
    assert ("samples: " in printed) == bool(data)
    assert ("final validation accuracy" in printed) != bool(data)


def test_moons_are_told_apart(command: Command, tmp_path: Path) -> None:
    code, printed = command("train", "moons", "--out", tmp_path / "run")
    assert code == 0, printed
    (line,) = [line for line in printed.splitlines() if "validation accuracy" in line]
    assert float(line.split()[3]) >= 0.97


@pytest.mark.parametrize("name", ["deep_mlp", "transformer"])
def test_what_is_evaluated_is_the_forward(name: str) -> None:
    """With the statistics of the batch the mean of the metric is the loss that is trained."""
    recipe = recipe_of(load_target(name))
    dataset = load_dataset(bundled_path(), recipe.context, 1, rows=recipe.rows)
    params = recipe.init(Generator().manual_seed(0), 27, torch.float64)
    x, y = dataset.val.x[:64], dataset.val.y[:64]
    measured = recipe.metrics(x, y, params, recipe.init_buffers(torch.float64, 27), True)["loss"]
    torch.testing.assert_close(measured.mean(), recipe.forward(x, y, *params.values()), rtol=1e-9, atol=1e-12)


def test_rows_of_words_are_filled_up_with_an_index_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text("\n".join(f"a{'b' * k}" for k in range(20)) + "\n")
    data = load_dataset(path, 6, 0, rows=RowKind.words)
    x = torch.cat([part.x for part in (data.train, data.val, data.test)])
    y = torch.cat([part.y for part in (data.train, data.val, data.test)])
    rows = sorted(zip(x.tolist(), y.tolist(), strict=True), key=lambda row: row[0].count(2), reverse=False)
    assert rows[0] == ([0, 1, 3, 3, 3, 3], [1, 0, 0, 0, 0, 0])
    assert ([0, 1, 2, 2, 3, 3], [1, 2, 2, 0, 0, 0]) in rows
    assert rows[-1] == ([0, 1, 2, 2, 2, 2], [1, 2, 2, 2, 2, 2])
    assert len(rows) == 20


def test_a_recipe_with_data_of_its_own_takes_no_file_and_makes_no_names(command: Command, tmp_path: Path) -> None:
    code, printed = command("train", "moons", "--data", "points.txt", "--out", tmp_path / "run")
    assert code == 2
    assert "moons makes its own data and takes none from points.txt. Leave --data out." in printed
    assert command("train", "moons", "--steps", 2, "--out", tmp_path / "run")[0] == 0
    code, printed = command("sample", tmp_path / "run")
    assert code == 2
    assert "the model moons does not make names" in printed


def test_without_scikit_learn_the_digits_say_what_to_install(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    code, printed = command("train", "digits", "--out", tmp_path / "run")
    assert code == 2
    assert "which is not installed: pip install 'symgrad[examples]'" in printed
    assert "Traceback" not in printed


OWN = """
import torch

def forward(x, y, w):
    loss = (x @ w - y).square().mean()
    return loss

def example_inputs(generator):
    return {{"x": torch.randn(8, 3, generator=generator), "y": torch.randn(8, generator=generator), **init(generator, torch.float32)}}

def init(generator, dtype):
    return {{"w": torch.randn(3, generator=generator, dtype=dtype)}}

def data(generator):
    x = torch.randn(60, 3, generator=generator)
    pair = (x, x @ torch.tensor([1.0, -2.0, 0.5]))
    return {data}

def metrics(x, y, params, buffers, batch_stats):
    return {{{metrics}: (x @ params["w"] - y).square()}}
"""


@pytest.mark.parametrize(
    ("data", "metrics", "code", "text"),
    [
        ("{'train': pair, 'val': pair, 'test': pair}", "'loss'", 0, "final validation loss 0.0000 over 60 rows\n"),
        ("{'train': pair, 'val': pair}", "'loss'", 2, "data must give train, val, test"),
        ("{'train': pair, 'val': pair, 'test': (x, x[:3])}", "'loss'", 2, "equally many rows"),
        ("{'train': pair, 'val': pair, 'test': x}", "'loss'", 2, "test is a Tensor"),
        ("{'train': pair, 'val': pair, 'test': (x, 3)}", "'loss'", 2, "test is a tuple"),
        ("(pair, pair, pair)", "'loss'", 2, "a dict of train, val, test"),
        ("{'train': pair, 'val': pair, 'test': pair}", "'error'", 2, "and 'loss' must be among it"),
        ("1 / 0", "'loss'", 2, "ZeroDivisionError"),
    ],
)
def test_a_file_of_ones_own_brings_its_data(
    command: Command, tmp_path: Path, data: str, metrics: str, code: int, text: str
) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN.format(data=data, metrics=metrics))
    found, printed = command("train", path, "--steps", 60, "--batch", 8, "--lr", 0.2, "--out", tmp_path / "run")
    assert (found, text in printed) == (code, True), printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    "name", ["init(generator, dtype)", "data(generator)", "metrics(x, y, params, buffers, batch_stats)"]
)
def test_what_a_function_is_called_with_is_said_where_it_takes_something_else(
    command: Command, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "own.py"
    text = OWN.format(data="{'train': pair, 'val': pair, 'test': pair}", metrics="'loss'")
    path.write_text(text.replace(f"def {name}", f"def {name[: name.index('(')]}(seed, *, verbose)"))
    found, printed = command("train", path, "--steps", 60, "--out", tmp_path / "run")
    assert found == 2, printed
    assert (
        f"{name[: name.index('(')]} is called with ({name[name.index('(') + 1 : -1]}), and takes (seed, verbose)."
        in printed.replace("\n", " ")
    )
    assert "Traceback" not in printed
