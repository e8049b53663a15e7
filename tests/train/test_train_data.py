"""Data: pairs as the notebook makes them, and every file that is refused."""

import os
import random
from pathlib import Path

import pytest
import torch

from codegen.train.data import Vocabulary, bundled_path, load_dataset
from engine.errors import DataError


def notebook_pairs(words: list[str], context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The notebook's loop, word by word and character by character."""
    symbols = sorted(set("".join([*words, "."])))
    index = {symbol: i for i, symbol in enumerate(symbols)}
    xs: list[list[int]] = []
    ys: list[int] = []
    for word in words:
        window = "." * context
        for character in word + ".":
            xs.append([index[c] for c in window])
            ys.append(index[character])
            window = window[1:] + character
    return torch.tensor(xs), torch.tensor(ys)


@pytest.mark.parametrize("context", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", [0, 42])
def test_pairs_are_the_notebooks(names: Path, context: int, seed: int) -> None:
    data = load_dataset(names, context, seed)
    words = sorted(set(names.read_text().splitlines()))
    random.Random(seed).shuffle(words)  # an order, not a secret
    x, y = notebook_pairs(words, context)
    cuts = [int(0.8 * len(x)), int(0.9 * len(x))]
    for part, expected_x, expected_y in zip(
        (data.train, data.val, data.test), x.tensor_split(cuts), y.tensor_split(cuts), strict=True
    ):
        assert torch.equal(part.x, expected_x)
        assert torch.equal(part.y, expected_y)


def test_bundled_names() -> None:
    data = load_dataset(bundled_path(), 3, 42)
    assert data.names == 29_910
    assert data.vocabulary.symbols == tuple(".abcdefghijklmnopqrstuvwxyz")
    pairs = sum(len(line) + 1 for line in bundled_path().read_text().split())
    assert len(data.train.x) == int(0.8 * pairs)
    assert len(data.train.x) + len(data.val.x) == int(0.9 * pairs)
    assert len(data.train.x) + len(data.val.x) + len(data.test.x) == pairs


def test_the_end_need_not_sort_first(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("mary-ann\njo ann\nzoe\n")
    data = load_dataset(path, 2, 0)
    assert data.vocabulary.symbols[:3] == (" ", "-", ".")
    assert data.train.x[0].tolist() == [2, 2]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_blank_lines_repetitions_line_ends_and_a_mark_change_nothing(names: Path, tmp_path: Path, end: str) -> None:
    path = tmp_path / "windows.txt"
    lines = names.read_text().splitlines()
    path.write_bytes(("\ufeff" + end.join([*lines, "", "  ", lines[0] + " "])).encode())
    plain, windows = load_dataset(names, 3, 1), load_dataset(path, 3, 1)
    assert windows.vocabulary == plain.vocabulary
    assert torch.equal(windows.train.x, plain.train.x)
    assert torch.equal(windows.test.y, plain.test.y)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n\t\n", "is empty"),
        ("emma\n".encode("utf-16"), "is UTF-16"),
        (b"emma\n\0\1\2", "is binary: a zero byte at offset 5"),
        (b"emma\nava\x07\n", r"line 2: control character '\\x07'"),
        ("emma\nzoé\n".encode("latin-1"), "line 2: byte 0xe9 is not UTF-8"),
        (b"emma\nst.john\n", r"line 2: 'st.john' has a '.'"),
        (b"emma\n" + b"x" * 1000 + b".\n", r"x\.\.\.' has a '.'"),
        (b"ab\n", "gives 3 pairs"),
    ],
)
def test_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(path, 3, 0)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data file"):
        load_dataset(tmp_path / "absent.txt", 3, 0)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the data file"):
        load_dataset(tmp_path, 3, 0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_what_cannot_be_read_again(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="is a pipe or a device"):
            load_dataset(path, 3, 0)
    with pytest.raises(DataError, match="no data file .*null"):
        load_dataset(tmp_path / "a\0b", 3, 0)


def test_a_character_the_vocabulary_lacks(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("emma\nzoë\nåsa\n")
    with pytest.raises(DataError, match="line 2: 'ë' in 'zoë' is not among the 27 symbols of the checkpoint"):
        load_dataset(path, 3, 0, Vocabulary(tuple(".abcdefghijklmnopqrstuvwxyz")))
