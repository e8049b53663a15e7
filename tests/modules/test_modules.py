"""Layers, losses and whole networks as modules: results, gradients and buffers are autograd's, in both modes."""

import pytest
import torch

from tests.modules.compare import assert_module_matches
from tests.modules.layers import LAYERS, Case
from tests.modules.losses import CASES as LOSSES
from tests.modules.networks import NETWORKS

pytestmark = [  # the last two are what torch itself says of these layers
    pytest.mark.sampled("case"),
    pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

MODES = ("steps", "closed")
CASES = [*LAYERS, *LOSSES, *NETWORKS]
ALONE = {c.name for c in CASES if c.alone} - {c.name for c in CASES[::3]}
"""Those whose batch of one is left to the program of larger ones in closed mode."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_in_float64(case: Case, mode: str) -> None:
    """In steps mode a batch of one has its program in float32."""
    alone = mode == "closed" and case.name not in ALONE
    assert_module_matches(case, mode, torch.float64, (4, 2, 7, 1) if case.alone else (4, 2, 7), alone=alone)


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_in_float32(case: Case) -> None:
    assert_module_matches(case, "steps", torch.float32, () if case.alone else (3,))


def test_the_names_of_the_cases_are_distinct() -> None:
    names = [c.name for c in CASES]
    assert len(set(names)) == len(names)
