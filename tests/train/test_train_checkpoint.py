"""Checkpoints: what is written is what is read, anything else is refused, and nothing in one is executed."""

import hashlib
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from codegen.targets import load_target
from codegen.train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from codegen.train.data import Vocabulary
from codegen.train.metrics import Row, metrics_file, rows_from_tensor, rows_to_tensor
from codegen.train.recipe import recipe_of
from codegen.train.settings import Settings
from codegen.train.state import check_model
from engine.errors import CheckpointError
from examples import mlp

SETTINGS = Settings().as_json()


@pytest.fixture
def checkpoint() -> Checkpoint:
    params = mlp.init(torch.Generator().manual_seed(0), 27, torch.float32)
    return Checkpoint(
        model="mlp",
        step=7,
        vocabulary=Vocabulary(tuple(".abcdefghijklmnopqrstuvwxyz")),
        settings=Settings(),
        data_path="names.txt",
        data_digest="0" * 64,
        tensors={f"params.{name}": value for name, value in params.items()}
        | {f"buffers.{name}": value for name, value in mlp.init_buffers(torch.float32).items()}
        | {
            "generator": torch.Generator().get_state(),
            "losses": torch.rand(7, dtype=torch.float64),
            "rows": torch.empty(0, 3),
        },
    )


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def sign(folder: Path, content: bytes) -> None:
    """Put other tensors in a checkpoint, its JSON naming their size and digest."""
    path = only(folder, "*.safetensors")
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    edit(folder / "checkpoint.json", tensors={"file": path.name, "bytes": len(content), "sha256": digest})


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_written_is_read(tmp_path: Path, checkpoint: Checkpoint) -> None:
    write_checkpoint(tmp_path, checkpoint)
    for path in (tmp_path, tmp_path / "checkpoint.json", only(tmp_path, "*.safetensors")):
        found = read_checkpoint(path)
        assert replace(found, tensors={}) == replace(checkpoint, tensors={})
        assert found.tensors.keys() == checkpoint.tensors.keys()
        for name, value in checkpoint.tensors.items():
            assert found.tensors[name].dtype == value.dtype
            assert torch.equal(found.tensors[name], value)


def test_the_json_says_what_it_is(tmp_path: Path, checkpoint: Checkpoint) -> None:
    write_checkpoint(tmp_path, checkpoint)
    document = json.loads((tmp_path / "checkpoint.json").read_text())
    assert document["model"] == "mlp"
    assert document["parameters"]["w1"] == [30, 200]
    assert document["settings"]["seed"] == 42
    assert "".join(document["vocabulary"]) == ".abcdefghijklmnopqrstuvwxyz"
    assert document["tensors"]["file"] == only(tmp_path, "*.safetensors").name


def test_a_new_one_replaces_the_old_and_what_a_killed_run_left(tmp_path: Path, checkpoint: Checkpoint) -> None:
    write_checkpoint(tmp_path, checkpoint)
    (tmp_path / "checkpoint-00000009-ffffffff.safetensors").write_bytes(b"orphan")
    (tmp_path / ".checkpoint.json.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    write_checkpoint(tmp_path, replace(checkpoint, step=8))
    assert read_checkpoint(tmp_path).step == 8
    assert len(list(tmp_path.iterdir())) == 3
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("pattern", ["checkpoint.json", "*.safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_truncated(tmp_path: Path, checkpoint: Checkpoint, pattern: str, keep: float) -> None:
    write_checkpoint(tmp_path, checkpoint)
    path = only(tmp_path, pattern)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match="truncated or damaged") as caught:
        read_checkpoint(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("at", [0, 9, 500, 20_000, -1])
def test_a_flipped_bit(tmp_path: Path, checkpoint: Checkpoint, at: int) -> None:
    write_checkpoint(tmp_path, checkpoint)
    path = only(tmp_path, "*.safetensors")
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is truncated or damaged: put back a copy, or train anew"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "is not a symgrad checkpoint"),
        ({"version": 2}, "format version 2; this release reads 1"),
        ({"model": None}, "'model' is missing or not a str"),
        ({"step": "7"}, "'step' is missing or not a int"),
        ({"step": True}, "'step' is missing or not a int"),
        ({"vocabulary": ["a", "a", "."]}, "vocabulary"),
        ({"vocabulary": [1, "."]}, "vocabulary"),
        ({"vocabulary": ["a"]}, "vocabulary"),
        ({"settings": {}}, "setting 'steps'"),
        ({"settings": SETTINGS | {"seed": 2**80}}, "checkpoint.json: the seed is"),
        ({"settings": SETTINGS | {"batch": 0}}, "checkpoint.json: batch is 0"),
        ({"data": "names.txt"}, "'data' is missing or not a dict"),
        ({"parameters": {"C": [1]}}, "parameter shapes"),
        ({"tensors": {"file": "../x.safetensors", "bytes": 1, "sha256": ""}}, "not a file beside it"),
        ({"tensors": {"file": "gone.safetensors", "bytes": 1, "sha256": ""}}, "cannot read .*gone.safetensors"),
        ({"tensors": {"file": "..", "bytes": 1, "sha256": ""}}, "not a file beside it|cannot read"),
    ],
)
def test_altered_json(tmp_path: Path, checkpoint: Checkpoint, changes: dict[str, Any], message: str) -> None:
    write_checkpoint(tmp_path, checkpoint)
    edit(tmp_path / "checkpoint.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b"\xff\xfe", b"[" * 100_000])
def test_json_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.json").write_bytes(content)
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path)


def test_missing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / "absent.json", tmp_path / "absent.safetensors"):
        with pytest.raises(CheckpointError, match="does not exist"):
            read_checkpoint(path)


def test_tensors_of_no_checkpoint(tmp_path: Path, checkpoint: Checkpoint) -> None:
    write_checkpoint(tmp_path, checkpoint)
    with pytest.raises(CheckpointError, match="belongs to no checkpoint"):
        read_checkpoint(tmp_path / "older.safetensors")


@pytest.mark.parametrize("dtype", ["F4", "F8_E8M0", "F99"])
def test_tensors_of_a_type_that_torch_lacks(tmp_path: Path, checkpoint: Checkpoint, dtype: str) -> None:
    write_checkpoint(tmp_path, checkpoint)
    header = json.dumps({"params.w1": {"dtype": dtype, "shape": [16], "data_offsets": [0, 8]}}).encode()
    sign(tmp_path, len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError, match="is not a safetensors file of torch's tensors"):
        read_checkpoint(tmp_path)


def test_a_header_of_absurd_length(tmp_path: Path, checkpoint: Checkpoint) -> None:
    write_checkpoint(tmp_path, checkpoint)
    sign(tmp_path, (2**63 - 1).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        read_checkpoint(tmp_path)


class Bomb:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("pattern", ["checkpoint.json", "*.safetensors"])
def test_reading_executes_nothing(tmp_path: Path, checkpoint: Checkpoint, pattern: str) -> None:
    write_checkpoint(tmp_path, checkpoint)
    mark = tmp_path / "executed"
    only(tmp_path, pattern).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path)
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "model.pt")
    assert not mark.exists()


def test_of_another_model(checkpoint: Checkpoint) -> None:
    recipe = recipe_of(load_target("mlp"))
    check_model(checkpoint, recipe, "here")
    tensors = checkpoint.tensors
    without = {name: value for name, value in tensors.items() if name != "params.b2"}
    for other, message in (
        (replace(checkpoint, model="deep"), "here is a checkpoint of the model 'deep', not of 'mlp'"),
        (replace(checkpoint, tensors=without), "lacks the parameter 'b2'"),
        (replace(checkpoint, tensors=tensors | {"params.b3": torch.zeros(1)}), "has the parameter 'b3'"),
        (replace(checkpoint, tensors=tensors | {"params.b2": torch.zeros(28)}), r"its b2 is torch.float32 \(28,\)"),
        (replace(checkpoint, tensors=tensors | {"params.b2": torch.zeros(27).double()}), "its b2 is torch.float64"),
        (replace(checkpoint, tensors=tensors | {"buffers.extra": torch.zeros(1)}), "running statistics"),
    ):
        with pytest.raises(CheckpointError, match=message):
            check_model(other, recipe, "here")


def test_metrics_read_back_exactly_and_are_json() -> None:
    rows = [Row(10, 1 / 3, 2.5), Row(20, 0.1, math.inf)]
    first, second = (json.loads(line, parse_constant=pytest.fail) for line in metrics_file(rows).splitlines())
    assert first == rows[0]._asdict()
    assert second == {"step": 20, "train_loss": 0.1, "val_loss": None}
    assert rows_from_tensor(rows_to_tensor(rows)) == rows
    assert rows_from_tensor(rows_to_tensor([])) == []
