"""`codegen train` and `codegen sample` as a user runs them."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from codegen.train.checkpoint import read_checkpoint
from codegen.train.trainer import StepTrainer

Command = Callable[..., Any]
OPTIONS = ["steps", "batch", "lr", "seed", "data", "out", "backward", "dtype", "eval", "curve", "samples", "resume"]
OPTIONS += ["overwrite", "log-every"]


def test_a_run_from_start_to_samples(train: Command, tmp_path: Path) -> None:
    result = train("--samples", 5)
    assert (result.code, result.err) == (0, "")
    assert "data names.txt: 300 names, 27 symbols, split" in result.out
    lines = re.findall(r"step +(\d+)  train loss (\d\.\d{4})  val loss (\d\.\d{4})", result.out)
    assert [int(step) for step, *_ in lines] == [10, 20, 30, 40]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(f"{r['step']}", f"{r['train_loss']:.4f}", f"{r['val_loss']:.4f}") for r in rows] == lines
    names = re.search(r"^samples: (.*)$", result.out, re.MULTILINE)
    assert names is not None
    assert len(names[1].split(", ")) == 5
    assert f"final validation loss {lines[-1][2]} over" in result.out.splitlines()[-1]
    found = read_checkpoint(tmp_path / "run")
    assert (found.step, found.model, len(found.tensors["losses"])) == (40, "mlp", 40)
    assert sorted(p.name for p in (tmp_path / "run").iterdir() if not p.name.startswith("checkpoint-")) == [
        ".lock",
        "checkpoint.json",
        "metrics.jsonl",
    ]


def test_the_first_loss_is_that_of_knowing_nothing(train: Command, tmp_path: Path) -> None:
    train("--steps", 1)
    assert read_checkpoint(tmp_path / "run").tensors["losses"][0].item() == pytest.approx(3.3, abs=0.15)


def test_training_helps(train: Command, tmp_path: Path) -> None:
    train("--steps", 300, "--log-every", 300)
    losses = read_checkpoint(tmp_path / "run").tensors["losses"]
    assert losses[-50:].mean() < losses[:5].mean() - 0.5


@pytest.mark.parametrize("options", [(), ("--dtype", "float64", "--eval", "batch")])
def test_the_seed_fixes_everything(train: Command, tmp_path: Path, options: tuple[str, ...]) -> None:
    def outcome(out: str, seed: int) -> tuple[str, dict[str, torch.Tensor]]:
        result = train("--out", tmp_path / out, "--seed", seed, *options)
        lines = [line for line in result.out.splitlines() if "a second" not in line and "checkpoint" not in line]
        return "\n".join(lines), read_checkpoint(tmp_path / out).tensors

    (text, tensors), (again, same), (other, _) = outcome("a", 1), outcome("b", 1), outcome("c", 2)
    assert text == again
    assert text != other
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)


def test_evaluation_modes_differ_in_statistics_only(train: Command, tmp_path: Path) -> None:
    running = train("--out", tmp_path / "a").out
    batch = train("--out", tmp_path / "b", "--eval", "batch").out
    assert "(running statistics)" in running
    assert "(batch statistics)" in batch
    a, b = (read_checkpoint(tmp_path / name).tensors for name in "ab")
    assert torch.equal(a["params.w1"], b["params.w1"])
    assert not torch.equal(a["rows"], b["rows"])


def test_float64_is_float64_throughout(train: Command, tmp_path: Path) -> None:
    train("--dtype", "float64")
    tensors = read_checkpoint(tmp_path / "run").tensors
    assert {value.dtype for name, value in tensors.items() if "." in name} == {torch.float64}
    assert torch.get_default_dtype() == torch.float32


def test_the_curve_is_a_png(train: Command, tmp_path: Path) -> None:
    path = tmp_path / "loss.png"
    result = train("--curve", path)
    assert f"loss curve: {path}" in result.out
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(tmp_path.glob(".*.tmp")) == []


def test_a_curve_that_cannot_be_written_is_refused_before_training(train: Command, tmp_path: Path) -> None:
    folder = tmp_path / "folder.png"
    folder.mkdir()
    cases = {
        tmp_path / "absent" / "loss.png": "there is no folder",
        folder: "it is a folder",
        tmp_path / "checkpoint.json": "is not named as one",
    }
    for path, message in cases.items():
        result = train("--curve", path)
        assert result.code == 2
        assert message in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [(), ("--dtype", "float64"), ("--eval", "batch")])
def test_a_resumed_run_is_the_run(train: Command, tmp_path: Path, options: tuple[str, ...]) -> None:
    train("--out", tmp_path / "whole", *options)
    train("--out", tmp_path / "parts", "--steps", 40, *options)  # then wound back to step 20 by training anew
    train("--out", tmp_path / "parts", "--overwrite", *options)
    stop_after(train, 23, tmp_path / "parts", *options)
    result = train("--out", tmp_path / "parts", "--resume")
    assert "resumed at step 23" in result.out
    same_run(tmp_path / "whole", tmp_path / "parts")


def stop_after(train: Command, steps: int, out: Path, *options: str) -> None:
    """A run that gets a Ctrl-C when it has taken `steps` steps."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # some shells have it ignored
    original, taken = StepTrainer._step, 0  # pyright: ignore[reportPrivateUsage]

    def step(self: StepTrainer, *args: Any) -> float:
        nonlocal taken
        taken += 1
        if taken == steps:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepTrainer, "_step", step)
        patch.setattr("codegen.train.loop.MOST", 1)
        result = train("--out", out, "--overwrite", *options)
    assert result.code == 130
    assert f"The checkpoint of step {steps} is whole: {out / 'checkpoint.json'}" in result.out
    assert f"codegen train mlp --out {out} --resume" in result.out
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def same_run(a: Path, b: Path) -> None:
    """Parameters, buffers, generator, every loss and every logged row agree bit for bit."""
    first, second = read_checkpoint(a), read_checkpoint(b)
    assert first.step == second.step
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(value, second.tensors[name]) for name, value in first.tensors.items())
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


def test_more_steps_can_be_added(train: Command, tmp_path: Path) -> None:
    train()
    result = train("--steps", 50, "--resume")
    assert "resumed at step 40" in result.out
    assert read_checkpoint(tmp_path / "run").step == 50


def test_resuming_a_finished_run_changes_nothing(train: Command, tmp_path: Path) -> None:
    first = train().out
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    second = train("--resume").out
    assert second.splitlines()[-1] == first.splitlines()[-1]
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


def test_ending_at_an_interrupted_step_still_evaluates(train: Command, tmp_path: Path) -> None:
    stop_after(train, 7, tmp_path / "run")
    result = train("--steps", 7, "--resume")
    assert "step 7  train loss" in result.out
    assert "final validation loss" in result.out


def test_resuming_nothing_starts(train: Command, tmp_path: Path) -> None:
    result = train("--resume")
    assert result.code == 0
    assert "no checkpoint to resume" in result.out
    assert read_checkpoint(tmp_path / "run").step == 40


def test_resuming_needs_the_same_options_and_data(train: Command, names: Path, tmp_path: Path) -> None:
    train()
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    fewer, foreign = tmp_path / "fewer.txt", tmp_path / "foreign.txt"
    fewer.write_text("\n".join(names.read_text().splitlines()[:200]))
    foreign.write_text(names.read_text() + "zoë\n")
    for options, message in (
        (("--batch", 16), "trained with --batch 32, not 16"),
        (("--backward", "both"), "trained with --backward autograd, not both"),
        (("--steps", 20), "is at step 40, beyond --steps 20"),
        (("--data", fewer), "is not the data"),
        (("--data", foreign), "'ë' in 'zoë' is not among the 27 symbols of the checkpoint"),
        (("--data", tmp_path / "absent.txt"), "no data file"),
    ):
        result = train("--resume", *options)
        assert result.code == 2
        assert message in result.err
        assert "Traceback" not in result.err
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


def test_a_checkpoint_is_not_replaced_unless_asked(train: Command, tmp_path: Path) -> None:
    train()
    before = (tmp_path / "run" / "checkpoint.json").read_bytes()
    result = train("--seed", 1)
    assert result.code == 2
    assert "already holds a checkpoint" in result.err
    assert (tmp_path / "run" / "checkpoint.json").read_bytes() == before
    assert train("--seed", 1, "--overwrite").code == 0
    assert (tmp_path / "run" / "checkpoint.json").read_bytes() != before


def test_without_out_every_run_has_a_folder_of_its_own(
    command: Command, names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--data", names, "--steps", 5, "--backward", "autograd")
    assert "checkpoint: runs/mlp/checkpoint.json" in command("train", *options).out
    assert "checkpoint: runs/mlp-2/checkpoint.json" in command("train", *options).out
    assert "checkpoint: runs/mlp-2/checkpoint.json" in command("train", "--steps", 6, "--resume").out
    assert read_checkpoint(Path("runs/mlp")).step == 5
    assert read_checkpoint(Path("runs/mlp-2")).step == 6


def test_a_recipe_of_ones_own(
    command: Command, bigram: Path, names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    out = tmp_path / "run"
    result = command("train", bigram, "--data", names, "--out", out, "--backward", "autograd")
    assert result.code == 0
    assert "model bigram: 729 parameters" in result.out
    assert "30 steps" in result.out
    refused = command("sample", out)
    assert refused.code == 2
    assert "--target path/to/file.py" in refused.err
    sampled = command("sample", out, "--target", bigram, "--count", 3)
    assert len(sampled.out.splitlines()) == 3
    wrong = command("train", "mlp", "--data", names, "--out", out, "--resume")
    assert wrong.code == 2
    assert "is a checkpoint of the model 'bigram', not of 'mlp'" in wrong.err
    bigram.write_text(bigram.read_text().replace("context = 1", "context = 0"))
    assert "context is 0" in command("train", bigram).err


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("def init(", "it has no 'init'"),
        ("def logits(", "it has no 'logits'"),
        ("context = 1", "it has no 'context'"),
        ("y, table", "the forward to train takes x, y and its parameters"),
        ('"table": torch.randn', "init gives other, but the forward takes table"),
    ],
)
def test_what_a_recipe_lacks(command: Command, bigram: Path, tmp_path: Path, remove: str, message: str) -> None:
    replacement = {"y, table": "table", '"table": torch.randn': '"other": torch.randn'}.get(remove, "_" + remove)
    replacement = replacement.replace("_def ", "def _")
    bigram.write_text(bigram.read_text().replace(remove, replacement, 1))
    result = command("train", bigram, "--backward", "autograd", "--out", tmp_path / "run")
    assert result.code == 2
    assert message in result.err


def test_sampling(train: Command, command: Command, tmp_path: Path) -> None:
    train("--steps", 200)
    out = tmp_path / "run"
    first = command("sample", out, "--count", 8, "--seed", 3)
    assert (first.code, first.err) == (0, "")
    assert len(first.out.splitlines()) == 8
    assert set(first.out) <= set("abcdefghijklmnopqrstuvwxyz\n")
    (tensors,) = out.glob("*.safetensors")
    for path in (out, out / "checkpoint.json", tensors):
        assert command("sample", path, "--count", 8, "--seed", 3).out == first.out
    assert command("sample", out, "--count", 5, "--seed", 3).out.splitlines() == first.out.splitlines()[:5]
    assert command("sample", out, "--count", 8, "--seed", 4).out != first.out
    assert len(command("sample", out).out.splitlines()) == 20
    assert command("sample", out, "--count", 0).out == ""


def test_sampling_is_what_training_ended_with(train: Command, command: Command, tmp_path: Path) -> None:
    out = train("--samples", 4, "--seed", 5).out
    names = command("sample", tmp_path / "run", "--count", 4, "--seed", 5).out.splitlines()
    assert f"samples: {', '.join(names)}" in out


@pytest.mark.parametrize("name", ["absent", "../../etc/passwd", "os", "examples.mlp", "/tmp/x.py"])
def test_a_checkpoint_cannot_name_code_to_run(train: Command, command: Command, tmp_path: Path, name: str) -> None:
    train()
    path = tmp_path / "run" / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": name}))
    result = command("sample", tmp_path / "run")
    assert result.code == 2
    assert "is not bundled" in result.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a\0b", "is binary"),
        (b"\xff\xee", "not UTF-8"),
        (b"a.b\n", "marks the end"),
        (None, "no data"),
    ],
)
def test_bad_data(train: Command, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "data.txt"
    if content is not None:
        path.write_bytes(content)
    result = train("--data", path)
    assert result.code == 2
    assert message in result.err
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    "args",
    [
        ("train", "absent"),
        ("train", "--steps", "0"),
        ("train", "--lr", "nan"),
        ("train", "--lr", "-1"),
        ("train", "--lr", "inf"),
        ("train", "--dtype", "float16"),
        ("train", "--seed", "-1"),
        ("train", "--seed", str(2**64)),
        ("train", "--nonsense"),
        ("sample",),
        ("sample", "absent"),
        ("sample", "absent", "--count", "-1"),
        ("nonsense",),
    ],
)
def test_bad_arguments_exit_2(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = command(*args)
    assert result.code == 2
    assert result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("args", [("--help",), ("train", "--help"), ("sample", "--help")])
def test_help(command: Command, args: tuple[str, ...]) -> None:
    result = command(*args)
    assert result.code == 0
    assert "codegen" in result.out


def test_the_whole_help_of_train_names_every_option(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = command("train", "--help").out
    for option in OPTIONS:
        assert f"--{option} " in text
