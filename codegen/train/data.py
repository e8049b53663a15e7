"""Lists of names: reading, vocabulary, rows of characters or words, the 80/10/10 split; and data that a recipe makes."""

import hashlib
import random
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor

import examples
from codegen.train.recipe import SPLITS, Recipe, RowKind
from engine.errors import DataError

END = "."  # marks a name's end, and pads the context of its beginning


@dataclass(frozen=True)
class Vocabulary:
    """The symbols a model knows, sorted, `END` among them; a symbol's index is its position."""

    symbols: tuple[str, ...]

    @cached_property
    def index(self) -> dict[str, int]:
        """Position by symbol."""
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    @property
    def end(self) -> int:
        """The index of `END`."""
        return self.index[END]


class Split(NamedTuple):
    """Rows to train or evaluate on: what goes in (n, ...) and what should come out (n, ...).

    Of names, x is (n, context) int64 and y the next symbols, (n,) int64 for characters and (n, context) for words.
    """

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Dataset:
    """Rows to train on. `digest` is the SHA-256 of the file, or of the tensors where there is none; `text` says what it is.

    `names` is how many there are, where it is a list of names.
    """

    path: Path
    digest: str
    text: str
    vocabulary: Vocabulary
    train: Split
    val: Split
    test: Split
    names: int = 0


def bundled_path() -> Path:
    """The bundled list: US national baby names of 2017."""
    return Path(next(iter(examples.__path__))) / "data" / "ssa2017.txt"


def made_dataset(recipe: Recipe, seed: int, dtype: torch.dtype, path: Path) -> Dataset:
    """What a recipe's own `data` makes; floating-point tensors have the run's dtype. Raises DataError for something else."""
    make = recipe.data
    assert make is not None
    made = cast("object", make(torch.Generator().manual_seed(seed)))
    if not isinstance(made, Mapping):
        raise DataError(
            f"{recipe.name}: data must give a dict of {', '.join(SPLITS)}, each a pair of tensors; it gives a {type(made).__name__}."
        )
    parts: list[Split] = []
    digest = hashlib.sha256()
    for name in SPLITS:
        pair = pair_of(cast("Mapping[str, object]", made).get(name))
        if isinstance(pair, str):
            raise DataError(
                f"{recipe.name}: data must give {', '.join(SPLITS)}, each a pair of tensors with equally many rows, and not "
                f"none; {name} is {pair}."
            )
        for t in pair:
            digest.update(t.contiguous().view(-1).numpy().tobytes())
        parts.append(Split(*(t.to(dtype) if t.is_floating_point() else t for t in pair)))
    train, val, test = parts
    rows = sum(len(p.x) for p in parts)
    return Dataset(path, digest.hexdigest(), f"{recipe.name}: {rows:,} rows", Vocabulary(()), train, val, test)


def pair_of(made: object) -> tuple[Tensor, Tensor] | str:
    """Two tensors with equally many rows, and not none; of anything else what it is."""
    if not isinstance(made, (tuple, list)):
        return "None" if made is None else f"a {type(made).__name__}"
    parts = cast("tuple[object, ...]", made)
    tensors = [t for t in parts if isinstance(t, Tensor)]
    if len(tensors) != len(parts):
        return f"a {type(parts).__name__} of {', '.join(type(t).__name__ for t in parts)}"
    if len(tensors) != 2 or not all(t.dim() for t in tensors) or not len(tensors[0]) == len(tensors[1]) > 0:
        return str([tuple(t.shape) for t in tensors])
    return tensors[0], tensors[1]


def load_dataset(
    path: Path, context: int, seed: int, vocabulary: Vocabulary | None = None, rows: RowKind = RowKind.characters
) -> Dataset:
    """Distinct names of a file, one per line, sorted and shuffled by `seed`, as rows split 80/10/10.

    With a `vocabulary` (that of a checkpoint) symbols are numbered by it, otherwise by the sorted characters of the
    file. Raises DataError for a file that is missing, unreadable, empty, binary, not UTF-8, too short to split, or that
    has `END` or a character the vocabulary lacks inside a name.
    """
    lines, digest = _read_lines(path)
    words = sorted({line for line in lines if line})
    random.Random(seed).shuffle(words)  # an order, not a secret
    if vocabulary is None:
        vocabulary = Vocabulary(tuple(sorted({END}.union(*words))))
    else:
        _check_known(path, lines, vocabulary)
    x, y = (_pairs if rows is RowKind.characters else _words)(words, context, vocabulary)
    cuts = int(0.8 * len(x)), int(0.9 * len(x))
    train, val, test = (Split(a, b) for a, b in zip(x.tensor_split(cuts), y.tensor_split(cuts), strict=True))
    if not all(len(part.x) for part in (train, val, test)):
        raise DataError(
            f"{path} gives {len(x)} pairs of context and next character, too few to split 80/10/10. Add names."
        )
    text = f"{path.name}: {len(words):,} names, {len(vocabulary.symbols)} symbols"
    return Dataset(path, digest, text, vocabulary, train, val, test, len(words))


def _read_lines(path: Path) -> tuple[list[str], str]:
    """The file's lines without surrounding blanks, and its SHA-256."""
    content = _read(path)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16: it begins with that encoding's mark. Save the file as UTF-8.")
    if b"\0" in content:
        at = content.index(b"\0")
        raise DataError(f"{path} is binary: a zero byte at offset {at}. Give a text file with one name per line.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise DataError(f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8. Save the file as UTF-8.") from error
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    if not any(lines):
        raise DataError(f"{path} is empty: no name in {len(content)} bytes. Give a text file with one name per line.")
    suspect = {c for c in set(text) - set("\n\r\t") if c == END or unicodedata.category(c) == "Cc"}
    for number, line in enumerate(lines, 1) if suspect else ():
        for character in line:
            if character == END:
                raise DataError(
                    f"{path}, line {number}: {_excerpt(line)} has a {END!r}, which marks the end of a name. Remove it."
                )
            if character in suspect:
                raise DataError(
                    f"{path}, line {number}: control character {character!r}. Give a text file with one name per line."
                )
    return lines, hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    """A regular file's content: a pipe or a device could not be read again by the run that resumes this one."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DataError(
                f"{path} is a pipe or a device, which a resumed run could not read again. Save it to a file, and give that."
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"no data file {path} (looked in {Path.cwd()}). Give a text file with one name per line."
        ) from error
    except OSError as error:
        raise DataError(f"cannot read the data file {path}: {error.strerror}. Give a readable text file.") from error
    except ValueError as error:
        raise DataError(f"no data file {str(path)!r}: {error}. Name it with --data.") from error


def _check_known(path: Path, lines: list[str], vocabulary: Vocabulary) -> None:
    """Refuse a character outside of the vocabulary, naming its first line."""
    unknown = set[str]().union(*lines) - set(vocabulary.symbols)
    for number, line in enumerate(lines, 1) if unknown else ():
        for character in line:
            if character in unknown:
                raise DataError(
                    f"{path}, line {number}: {character!r} in {_excerpt(line)} is not among the "
                    f"{len(vocabulary.symbols)} symbols of the checkpoint. Use the data it was trained on, "
                    f"or train anew in another --out."
                )


def _excerpt(line: str) -> str:
    return repr(line if len(line) <= 40 else line[:40] + "...")


def _pairs(words: list[str], context: int, vocabulary: Vocabulary) -> Split:
    """Every character of every word and its end, each with the `context` symbols before it, in the words' order."""
    text = "".join(END * context + word + END for word in words)
    codes = torch.frombuffer(bytearray(text, "utf-32-le"), dtype=torch.int32)
    known = torch.tensor([ord(symbol) for symbol in vocabulary.symbols], dtype=torch.int32)
    order = known.argsort()
    windows = order[torch.searchsorted(known[order], codes)].unfold(0, context + 1, 1)
    # a pair's last symbol is never padding: the windows that begin late in one word and end in the next are no pairs
    marks = "".join("1" * (len(word) + 1) + "0" * context for word in words)
    starts = torch.frombuffer(bytearray(marks, "ascii"), dtype=torch.uint8) == ord("1")
    chosen = windows[starts[: len(windows)]]
    return Split(chosen[:, :context].contiguous(), chosen[:, context].contiguous())


def _words(words: list[str], context: int, vocabulary: Vocabulary) -> Split:
    """Every word as one row: `END` and its characters, and at each of these the next. Longer ones are cut.

    What comes after a word is filled up, x with the number of symbols (an index of its own), y with `END`.
    """
    index, end = vocabulary.index, vocabulary.end
    x = torch.full((len(words), context), len(vocabulary.symbols))
    y = torch.full((len(words), context), end)
    for k, word in enumerate(words):
        row = torch.tensor([end, *[index[c] for c in word], end])[: context + 1]
        x[k, : len(row) - 1], y[k, : len(row) - 1] = row[:-1], row[1:]
    return Split(x, y)
