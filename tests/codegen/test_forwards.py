"""Every forward of the table, in both dtypes and at several batch sizes from one trace, against autograd."""

import pytest
import torch

from codegen import generate
from codegen.program import Program
from tests.codegen.compare import assert_matches
from tests.codegen.forwards import TABLE, Forward

DTYPES = [torch.float32, torch.float64]
TRACED_AT, ALSO_AT = 6, (1, 2, 9)

_programs: dict[str, Program] = {}


def program_of(case: Forward) -> Program:
    if case.name not in _programs:
        _programs[case.name] = generate(case.function, *case.inputs(torch.float32, TRACED_AT), mode="steps")
    return _programs[case.name]


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("case", TABLE, ids=lambda c: c.name)
def test_gradients_are_those_of_autograd(case: Forward, dtype: torch.dtype) -> None:
    program = program_of(case)
    for n in (TRACED_AT, *(n for n in ALSO_AT if n >= case.least)):
        assert_matches(program, case.function, case.inputs(dtype, n))


@pytest.mark.parametrize("case", [c for c in TABLE if c.least == 1], ids=lambda c: c.name)
def test_a_trace_at_batch_one_works_at_batch_one(case: Forward) -> None:
    inputs = case.inputs(torch.float64, 1)
    assert_matches(generate(case.function, *inputs, mode="steps"), case.function, inputs)


def test_the_table_is_the_table() -> None:
    assert len({c.name for c in TABLE}) == len(TABLE) >= 55
