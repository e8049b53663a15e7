"""Checkpoints: a safetensors file, and the JSON that names it. Reading one never executes anything.

    checkpoint.json                             model, step, shapes, vocabulary, settings, data; the name, size and
                                                SHA-256 of the tensors
    checkpoint-00010000-3f2a9c41.safetensors    parameters, buffers, generator state, losses

The tensors are written first, under a name no older checkpoint has, and the JSON is then replaced atomically: at any
moment the JSON names tensors that are whole. What it no longer names is removed afterwards.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load, save

from codegen.train.data import END, Vocabulary
from codegen.train.files import DAMAGED, exists, write_atomically
from codegen.train.recipe import Tensors
from codegen.train.settings import Settings, settings_from_json
from engine.errors import CheckpointError, TrainingError

VERSION = 1
JSON_NAME = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped.

    `tensors` holds `params.NAME`, `buffers.NAME`, `generator` (its state), `losses` (step,) float64 and `rows` (the
    loss log); for a run in lockstep also `twin.params.NAME`, `twin.buffers.NAME` and `difference`.
    """

    model: str
    step: int
    vocabulary: Vocabulary
    settings: Settings
    data_path: str
    data_digest: str
    tensors: Tensors

    def group(self, prefix: str) -> Tensors:
        """The tensors named `prefix.NAME`, by NAME."""
        start = prefix + "."
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}

    def shapes(self) -> dict[str, list[int]]:
        """Shapes of the parameters, by name."""
        return {name: list(value.shape) for name, value in self.group("params").items()}


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint. Raises TrainingError when that fails; the previous one is then intact."""
    content = save({name: value.contiguous() for name, value in checkpoint.tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    name = f"checkpoint-{checkpoint.step:08}-{digest[:8]}.safetensors"
    document = {
        "format": "symgrad checkpoint",
        "version": VERSION,
        "model": checkpoint.model,
        "step": checkpoint.step,
        "parameters": checkpoint.shapes(),
        "vocabulary": list(checkpoint.vocabulary.symbols),
        "settings": checkpoint.settings.as_json(),
        "data": {"path": checkpoint.data_path, "sha256": checkpoint.data_digest},
        "tensors": {"file": name, "bytes": len(content), "sha256": digest},
    }
    try:
        write_atomically(folder / name, content)
        write_atomically(folder / JSON_NAME, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
        remove_leftovers(folder, keep=name)
    except OSError as error:
        previous = ""
        if (folder / JSON_NAME).exists():
            previous = f" The checkpoint before it is intact: {folder / JSON_NAME}."
        raise TrainingError(
            f"cannot write the checkpoint of step {checkpoint.step} to {folder}: {error.strerror}.{previous} "
            f"Make room, or choose another --out."
        ) from error


def remove_leftovers(folder: Path, keep: str) -> None:
    """Remove what earlier checkpoints, or a run that was killed while writing, left in the folder. Raises OSError."""
    for pattern in ("checkpoint-*.safetensors", ".checkpoint*.tmp"):
        for path in folder.glob(pattern):
            if path.name != keep:
                path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint given its folder, its JSON, or its safetensors file.

    Raises CheckpointError for one that is missing, truncated, altered, or not of this format and version.
    """
    json_path = path
    if path.suffix == ".safetensors":
        json_path = path.with_name(JSON_NAME)
    elif path.suffix != ".json":
        json_path = path / JSON_NAME if not exists(path) or path.is_dir() else path
    document = _Fields(_parse(json_path), str(json_path))
    if document.raw.get("format") != "symgrad checkpoint":
        raise CheckpointError(
            f"{json_path} is not a symgrad checkpoint. Give the folder that `codegen train --out` wrote."
        )
    if document.raw.get("version") != VERSION:
        raise CheckpointError(
            f"{json_path} has format version {document.raw.get('version')!r}; this release reads {VERSION}. Train anew."
        )
    symbols = document.get("vocabulary", list)
    distinct = all(isinstance(s, str) for s in symbols) and len(set(symbols)) == len(symbols)
    if not distinct or (symbols and END not in symbols):
        raise CheckpointError(f"{json_path}: the vocabulary is not a list of distinct symbols with {END!r}. {DAMAGED}")
    data = document.inner("data")
    checkpoint = Checkpoint(
        model=document.get("model", str),
        step=document.get("step", int),
        vocabulary=Vocabulary(tuple(symbols)),
        settings=settings_from_json(document.inner("settings").raw, str(json_path)),
        data_path=data.get("path", str),
        data_digest=data.get("sha256", str),
        tensors=_read_tensors(json_path, document.inner("tensors"), path),
    )
    if checkpoint.shapes() != document.get("parameters", dict):
        raise CheckpointError(f"{json_path}: the parameter shapes are not those of its tensors. {DAMAGED}")
    return checkpoint


@dataclass(frozen=True)
class _Fields:
    """Fields of a JSON object, checked as they are read."""

    raw: Mapping[str, Any]
    where: str

    def get(self, name: str, kind: type) -> Any:
        value = self.raw.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise CheckpointError(f"{self.where}: the field {name!r} is missing or not a {kind.__name__}. {DAMAGED}")
        return value

    def inner(self, name: str) -> "_Fields":
        return _Fields(self.get(name, dict), f"{self.where}, {name}")


def _parse(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no checkpoint: {path} does not exist. Give the folder that `codegen train --out` wrote."
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a whole JSON file ({error}). {DAMAGED}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is not a symgrad checkpoint. Give the folder that `codegen train --out` wrote.")
    return cast("Mapping[str, Any]", document)


def _read_tensors(json_path: Path, fields: _Fields, asked: Path) -> Tensors:
    name, size, digest = fields.get("file", str), fields.get("bytes", int), fields.get("sha256", str)
    if Path(name).name != name:
        raise CheckpointError(f"{json_path} names the tensors {name!r}, which is not a file beside it. {DAMAGED}")
    if asked.suffix == ".safetensors" and asked.name != name:
        raise CheckpointError(
            f"{asked} belongs to no checkpoint: {json_path} names {name}. Give that file, or the folder."
        )
    path = json_path.with_name(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}, the tensors of {json_path}: {error.strerror}.") from error
    if len(content) != size:
        raise CheckpointError(f"{path} has {len(content):,} bytes, not the {size:,} that were written. {DAMAGED}")
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(f"{path} is not what was written (SHA-256 differs). {DAMAGED}")
    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:  # KeyError: a dtype that torch lacks
        raise CheckpointError(f"{path} is not a safetensors file of torch's tensors ({error}). {DAMAGED}") from error
