"""Functions that numpy has not: right in all digits of a longdouble, with slopes, and asked of mpmath once for equal arguments."""

import mpmath
import numpy as np
import pytest

from engine.arithmetic import _on_line, arithmetic
from engine.frommpmath import exactly

STEP = np.longdouble("1e-2480")
EPS = np.finfo(np.longdouble).eps

TRUTH = {
    "erf": (mpmath.erf, lambda x: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x)),
    "erfc": (mpmath.erfc, lambda x: -2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x)),
    "loggamma": (lambda x: mpmath.log(abs(mpmath.gamma(x))), mpmath.digamma),
}


def points() -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.longdouble)
    return np.abs(x / 3) + np.longdouble(1e-5)


@pytest.mark.parametrize("name", TRUTH)
def test_values_and_slopes(name: str) -> None:
    value, slope = TRUTH[name]
    x = points()
    found = arithmetic("complex").apply(name, [x + 1j * STEP], value)
    with mpmath.workdps(40):
        for z, at in zip(found.flat, x.flat, strict=True):
            for side, true in ((z.real, value(exactly(at))), (z.imag / STEP, slope(exactly(at)))):
                assert abs(exactly(side) - true) <= 2 * EPS * abs(true)


def test_equal_arguments_are_asked_for_once() -> None:
    asked: list[mpmath.mpf] = []

    def cube(x: mpmath.mpf) -> mpmath.mpf:
        asked.append(x)
        return x**3

    numbers = arithmetic("complex")
    x = points()
    assert numbers.apply("cube", [x], cube).dtype == np.longdouble
    assert len(asked) == x.size
    moved = x.astype(np.clongdouble)
    moved[1, 2] += 1j * STEP
    found = numbers.apply("cube", [moved], cube)
    few = len(asked) - x.size
    assert 0 < few < x.size
    assert [tuple(int(k) for k in at) for at in np.argwhere(found.imag)] == [(1, 2)]
    assert abs(found[1, 2].imag / STEP / (3 * x[1, 2] ** 2) - 1) < 4 * EPS
    again = numbers.apply("cube", [moved], cube)
    assert len(asked) == x.size + few
    assert (again == found).all()
    near = x.copy()
    near[0, 0] += x[0, 0] * EPS  # the last bit of a longdouble
    numbers.apply("cube", [near], cube)
    assert len(asked) > x.size + few


def test_what_is_outside_of_a_domain_is_nan() -> None:
    found = arithmetic("complex").apply("loggamma", [np.array([0.5, np.nan, np.inf]) + 1j * STEP], mpmath.loggamma)
    assert np.isnan(found.real).tolist() == [False, True, False]


def test_nothing_is_remembered_of_nan() -> None:
    """No nan equals another: it would be looked for among all that were kept."""
    before = _on_line.cache_info().currsize
    with np.errstate(invalid="ignore"):
        found = arithmetic(50).apply("exp", [np.full(9, np.nan)], mpmath.exp)
    assert all(mpmath.isnan(x) for x in found)
    assert _on_line.cache_info().currsize == before
