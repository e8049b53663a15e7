"""Settings: the schedule, where each value comes from, and what may change when a run is resumed."""

import json
from dataclasses import replace
from typing import Any

import pytest

from codegen.train.settings import (
    BackwardMode,
    DType,
    EvalMode,
    Settings,
    fresh_settings,
    resumed_settings,
    settings_from_json,
)
from engine.errors import CheckpointError, TrainingError


def test_learning_rate_drops_at_half() -> None:
    settings = Settings(steps=11, lr=1.0)
    assert [settings.lr_at(step) for step in range(11)] == [1.0] * 5 + [0.1] * 6


def test_given_wins_over_the_recipe_over_ours() -> None:
    settings = fresh_settings({"steps": 5, "lr": 0.5, "unrelated": 1}, {"lr": 0.25})
    assert (settings.steps, settings.lr, settings.batch) == (5, 0.25, 32)


@pytest.mark.parametrize("bad", [{"lr": float("nan")}, {"lr": float("inf")}, {"lr": -1.0}, {"steps": 0}, {"batch": 0}])
def test_values_no_run_can_have(bad: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="must be"):
        fresh_settings({}, bad)


def test_json_and_back() -> None:
    settings = Settings(3, 4, 0.1, 2**63 - 1, DType.float64, BackwardMode.both, EvalMode.batch, 7)
    assert settings_from_json(json.loads(json.dumps(settings.as_json())), "here") == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", None), ("steps", "many"), ("lr", True), ("dtype", "float8"), ("dtype", 3), ("batch", [1]), ("lr", "1")],
)
def test_damaged_json(name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"here: the setting '{name}'"):
        settings_from_json(Settings().as_json() | {name: value}, "here")


def test_resuming_may_only_change_the_number_of_steps() -> None:
    saved = Settings(steps=100, batch=16)
    assert resumed_settings(saved, {}, "here") == saved
    assert resumed_settings(saved, {"batch": 16, "steps": 200}, "here") == replace(saved, steps=200)
    with pytest.raises(TrainingError, match="here was trained with --batch 16, not 32"):
        resumed_settings(saved, {"batch": 32}, "here")
    with pytest.raises(TrainingError, match="--log-every"):
        resumed_settings(saved, {"log_every": 1}, "here")
