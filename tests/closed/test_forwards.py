"""Every forward of the table in closed form, at several batch sizes from one trace, against autograd."""

import pytest
import torch

from codegen import generate
from tests.codegen.compare import assert_matches
from tests.codegen.forwards import TABLE, Forward


@pytest.mark.sampled("case")
@pytest.mark.parametrize("case", TABLE, ids=lambda c: c.name)
def test_gradients_are_those_of_autograd(case: Forward) -> None:
    program = generate(case.function, *case.inputs(torch.float32, 6))
    for n in (6, *(n for n in (1, 2, 9) if n >= case.least)):
        assert_matches(program, case.function, case.inputs(torch.float64, n))
