"""What a training run is told: everything, with the data, that its result depends on. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, cast

from codegen.train.files import DAMAGED
from engine.errors import CheckpointError, TrainingError


class BackwardMode(StrEnum):
    """Where gradients come from; `both` runs the two in lockstep."""

    generated = "generated"
    autograd = "autograd"
    both = "both"


class EvalMode(StrEnum):
    """Statistics used for validation: the running ones, or those of the whole split."""

    running = "running"
    batch = "batch"


class DType(StrEnum):
    """Floating point type of parameters, buffers and everything computed from them."""

    float32 = "float32"
    float64 = "float64"


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of a run. The learning rate is `lr` for the first half of the steps, then `lr / 10`.

    `compile` is among them as compiled steps round differently: a resumed run must repeat it.
    """

    steps: int = 10_000
    batch: int = 32
    lr: float = 1.0
    seed: int = 42
    dtype: DType = DType.float32
    backward: BackwardMode = BackwardMode.generated
    eval: EvalMode = EvalMode.running
    log_every: int = 1_000
    compile: bool = False

    def __post_init__(self) -> None:
        """Raises TrainingError for a value no run can have."""
        for name in ("steps", "batch", "log_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.seed < 2**63:
            raise TrainingError(f"the seed is {self.seed}; it must be at least 0 and less than 2**63.")
        if not (self.lr >= 0 and math.isfinite(self.lr)):
            raise TrainingError(f"the learning rate is {self.lr}; it must be a finite number, at least 0.")

    def lr_at(self, step: int) -> float:
        """Learning rate of the step with this index, from 0."""
        return self.lr if step < self.steps // 2 else self.lr / 10

    def as_json(self) -> dict[str, Any]:
        """By name, in types that JSON has."""
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in asdict(self).items()}


def settings_from_json(raw: Mapping[str, Any], where: str) -> Settings:
    """Read settings back. Raises CheckpointError, naming `where`, for a missing field or one of the wrong kind."""
    values: dict[str, Any] = {}
    for field in fields(Settings):
        kind = cast("type[Any]", type(field.default))
        value = raw.get(field.name)
        try:
            fits = bool if kind is bool else str if issubclass(kind, str) else (int, float)
            if isinstance(value, bool) is not (kind is bool) or not isinstance(value, fits):
                raise ValueError
            values[field.name] = kind(value)
        except (ValueError, OverflowError) as error:
            raise CheckpointError(
                f"{where}: the setting {field.name!r} is {value!r}, not a {kind.__name__}. {DAMAGED}"
            ) from error
    try:
        return Settings(**values)
    except TrainingError as error:
        raise CheckpointError(f"{where}: {error} {DAMAGED}") from error


def fresh_settings(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
    """Settings of a new run: what was given, else the recipe's defaults, else ours."""
    known = {k: v for k, v in defaults.items() if k in {f.name for f in fields(Settings)}}
    return Settings(**(known | dict(given)))


def resumed_settings(saved: Settings, given: Mapping[str, Any], where: str) -> Settings:
    """Settings of a continued run: the saved ones. Only `steps` may differ; anything else raises TrainingError."""
    for name, value in given.items():
        if name != "steps" and getattr(saved, name) != value:
            option = "--" + name.replace("_", "-")
            raise TrainingError(
                f"{where} was trained with {option} {getattr(saved, name)}, not {value}, and resuming must repeat it. "
                f"Leave {option} out, or train anew in another --out."
            )
    return replace(saved, steps=given["steps"]) if "steps" in given else saved
