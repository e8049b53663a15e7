"""Random forwards against autograd, and laws that hold for any forward."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codegen import check, generate
from codegen.measure import difference
from codegen.truth import chosen_entries
from engine import trace
from tests.codegen.random_forwards import RandomForward, forwards

SLOW = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@SLOW
@given(forwards(), st.integers(0, 3))
def test_random_forwards_agree_with_autograd(forward: RandomForward, seed: int) -> None:
    function = forward.function()
    inputs = forward.tensors(torch.float64, seed)
    program = generate(function, *inputs, mode="steps")
    report = check(program, *inputs, truth=False)
    assert report.ok, (report.failures, program.source)


@settings(SLOW, max_examples=25)
@given(forwards(steps=4), st.floats(-2, 2))
def test_the_backward_is_linear_in_its_cotangent(forward: RandomForward, factor: float) -> None:
    inputs = forward.tensors(torch.float64, 0)
    program = generate(forward.function(), *inputs, mode="steps")
    out, saved = program.forward(*inputs)
    g, h = torch.randn_like(out), torch.randn_like(out)
    together = program.backward(saved, g + factor * h)
    first, second = program.backward(saved, g), program.backward(saved, h)
    for name, grad in together.items():
        expected = first[name] + factor * second[name]
        scale = max(1.0, float(first[name].abs().max()), float(second[name].abs().max())) if expected.numel() else 1.0
        torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-11 * scale)


@settings(SLOW, max_examples=25)
@given(forwards(steps=4))
def test_the_same_forward_gives_the_same_text(forward: RandomForward) -> None:
    inputs = forward.tensors(torch.float32, 0)
    first, second = (generate(forward.function(), *inputs, mode="steps").source for _ in range(2))
    assert first == second
    assert repr(trace(forward.function(), *inputs)) == repr(trace(forward.function(), *inputs))


NUMBERS = st.floats(width=32)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6))
def test_differences_are_sound(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = (torch.tensor(side, dtype=torch.float32) for side in zip(*pairs, strict=True))
    d = difference(ours, theirs)
    assert not d.exact or d.allclose
    assert d.exact == torch.equal(ours.nan_to_num(nan=7.5), theirs.nan_to_num(nan=7.5)) or not bool(
        (ours.isnan() == theirs.isnan()).all()
    )
    assert d.absolute >= 0
    assert d.relative >= 0
    assert d.elementwise >= 0
    wrong_side = (ours.isfinite() != theirs.isfinite()).any()
    assert not (wrong_side and d.allclose)


@given(st.lists(st.integers(0, 5), max_size=3), st.integers(1, 8), st.integers(0, 9))
def test_entries_are_in_the_tensor_and_the_worst_is_among_them(shape: list[int], count: int, seed: int) -> None:
    excess = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    entries = chosen_entries(shape, excess, count, seed)
    assert len({*entries}) == len(entries) <= max(count, 1)
    if excess.numel():
        assert excess.max() in [excess[at] for at in entries]
    else:
        assert entries == []
