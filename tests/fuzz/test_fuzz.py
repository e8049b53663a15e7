"""A short run of the fuzzer, and that it sees what is wrong."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import codegen
from tests.codegen.random_forwards import RandomForward
from tests.fuzz.compare import MODES, Mismatch, compared
from tests.fuzz.forwards import forwards


@settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(forwards(), st.integers(0, 3))
def test_random_forwards_in_both_modes(drawn: RandomForward, seed: int) -> None:
    for mode in MODES:
        outcome = compared(drawn, mode, seed)
        assert outcome == "pass" or outcome.startswith("refused: ")


def test_a_wrong_backward_is_a_mismatch_that_shows_the_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = codegen.program.Program.backward

    def wrong(self: codegen.program.Program, saved: object, grad_out: object = None) -> dict[str, torch.Tensor]:
        return {name: 1.001 * g for name, g in plain(self, saved, grad_out).items()}

    monkeypatch.setattr(codegen.program.Program, "backward", wrong)
    drawn = RandomForward("def forward(x):\n    t0 = x.tanh()\n    return t0\n", (("x", (2, 3)),))
    with pytest.raises(Mismatch, match=r"def forward\(x\)"):
        compared(drawn, "steps", 0)
