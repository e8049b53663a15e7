"""Sums of products in whole numbers of one scale: as exact as mpmath's own, real and moved by a complex step."""

import mpmath
import numpy as np
import pytest

from engine.fixedpoint import Contractions

A, B, OUT = [2, 0, 1], [2, 1, 3], [2, 0, 3]


def numbers(seed: int, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.frompyfunc(lambda x: mpmath.mpf(x) / 3 * scale, 1, 1)(generator.standard_normal((1, *shape)))


@pytest.mark.parametrize(("left", "right"), [(1.0, 1.0), (1e200, 1e-250), (1e-300, 1e-300), (0.0, 1.0)])
def test_a_product_equals_mpmaths_own(left: float, right: float) -> None:
    with mpmath.workdps(60):
        a, b = numbers(0, (3, 5), left), numbers(1, (5, 4), right)
        found, wanted = Contractions()("ab", a, A, b, B, OUT), np.einsum(a, A, b, B, OUT)
        assert found is not None
        gap = max(abs(x - y) for x, y in zip(found.flat, wanted.flat, strict=True))
        assert gap <= mpmath.mpf(10) ** -59 * max(abs(x) for x in wanted.flat)


@pytest.mark.parametrize("moved", ["left", "right", "both"])
def test_a_complex_step_comes_through(moved: str) -> None:
    with mpmath.workdps(60):
        a, b = numbers(2, (3, 5)), numbers(3, (5, 4))
        step = mpmath.mpc(0, mpmath.mpf(10) ** -400)
        if moved in ("left", "both"):
            a[0, 1, 2] += step
        if moved in ("right", "both"):
            b[0, 2, 3] += 2 * step
        found, wanted = Contractions()("ab", a, A, b, B, OUT), np.einsum(a, A, b, B, OUT)
        assert found is not None
        for x, y in zip(found.flat, wanted.flat, strict=True):
            assert abs(x.real - y.real) < mpmath.mpf(10) ** -58
            assert abs(x.imag - y.imag) < mpmath.mpf(10) ** -458


def test_steps_from_the_same_values_differ_in_what_is_imaginary() -> None:
    with mpmath.workdps(60):
        contractions = Contractions()
        a, b = numbers(2, (3, 5)), numbers(3, (5, 4))
        for k in range(3):
            moved = a.copy()
            moved[0, k, 2] += mpmath.mpc(0, mpmath.mpf(10) ** -400)
            found, wanted = contractions("ab", moved, A, b, B, OUT), np.einsum(moved, A, b, B, OUT)
            assert found is not None
            assert [i for i in range(12) if found.flat[i].imag] == list(range(4 * k, 4 * k + 4))
            for x, y in zip(found.flat, wanted.flat, strict=True):
                assert abs(x.real - y.real) < mpmath.mpf(10) ** -58
                assert abs(x.imag - y.imag) < mpmath.mpf(10) ** -458


@pytest.mark.parametrize("odd", [mpmath.inf, -mpmath.inf, mpmath.nan])
def test_what_is_not_finite_is_left_to_mpmath(odd: mpmath.mpf) -> None:
    a, b = numbers(4, (3, 5)), numbers(5, (5, 4))
    a[0, 0, 0] = odd
    assert Contractions()("ab", a, A, b, B, OUT) is None


def test_entries_that_are_far_apart_are_left_to_mpmath() -> None:
    with mpmath.workdps(60):
        a, b = numbers(6, (3, 5)), numbers(7, (5, 4))
        a[0, 0] = np.frompyfunc(lambda x: x * mpmath.mpf(10) ** -4000, 1, 1)(a[0, 0])
        assert Contractions()("ab", a, A, b, B, OUT) is None
