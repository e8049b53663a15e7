"""The two-moons demo trains."""

import random

import pytest

from examples.moons import MLP, main, make_moons


def test_it_learns_the_two_moons(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(seed=2, count=60, steps=40) >= 0.95
    printed = capsys.readouterr().out
    assert "step   0" in printed
    assert {"o", "x", ".", ":"} <= set(printed.rpartition("\n\n")[2])


def test_the_moons_are_two_half_circles() -> None:
    points, labels = make_moons(200, 0.0, random.Random(0))
    assert labels.count(1) == labels.count(-1) == 100
    for (x, y), label in zip(points, labels, strict=True):
        centre = (0.0, 0.0) if label == -1 else (1.0, 0.5)
        assert (x - centre[0]) ** 2 + (y - centre[1]) ** 2 == pytest.approx(1.0)
        assert (y - centre[1]) * label <= 1e-12


def test_a_seed_fixes_data_and_parameters() -> None:
    one, two = random.Random(1), random.Random(1)
    assert make_moons(10, 0.1, one) == make_moons(10, 0.1, two)
    assert [p.data for p in MLP(2, [3], one).parameters()] == [p.data for p in MLP(2, [3], two).parameters()]
    assert len(MLP(2, [3, 4], one).parameters()) == 3 * 3 + 4 * 4 + 5
