"""`codegen bench`: what is not equal is not timed, and what is timed is told with its memory."""

import pytest
import torch

from codegen.bench import race as racing
from codegen.bench.race import UnequalError, race
from codegen.bench.variants import VARIANTS, Runner
from codegen.bench.workloads import WORKLOADS, Workload, workload


@pytest.fixture(autouse=True)
def single() -> object:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


def test_variants_that_take_other_steps_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(w: Workload) -> Runner:
        made = VARIANTS["eager"](w)
        with torch.no_grad():
            made.params["w2"][3, 5] += 1e-3
        return made

    monkeypatch.setitem(racing.VARIANTS, "wrong", wrong)
    with pytest.raises(UnequalError, match="W1: after a step w2 of 'wrong' differs from eager's"):
        race(workload("W1"), ["wrong"], rounds=1, seconds=0.01)


def test_a_race_tells_speed_and_memory() -> None:
    found = race(workload("W1"), ["emitted", "floor"], rounds=3, seconds=0.01)
    assert [r.variant for r in found] == ["eager", "emitted", "floor"]
    eager, emitted, floor = found
    assert eager.median == eager.low == eager.high == 1.0
    assert all(r.microseconds > 0 and r.low <= r.median <= r.high for r in found)
    assert emitted.memory > 27 * 100 * 32 * 4  # the rows that are drawn ahead of time are counted
    assert floor.memory < eager.memory


def test_every_workloads_forward_is_its_eager_form() -> None:
    for name in WORKLOADS:
        w = workload(name)
        x, y = w.data()
        torch.set_default_dtype(w.dtype)
        values = list(w.params.values())
        torch.testing.assert_close(w.forward(x[:32], y[:32], *values), w.eager(x[:32], y[:32], values))
