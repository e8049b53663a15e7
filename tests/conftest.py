"""Settings of the whole suite: the same examples in every run, and no deadline on a busy machine.

`SUITE_SEED=1 pytest` runs it on other random numbers.
"""

import gc
import os
import zlib
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """A test draws its own numbers, whichever tests ran before it in this process."""
    torch.manual_seed(zlib.crc32(f"{request.node.nodeid} {os.environ.get('SUITE_SEED', '')}".encode()))


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    """`codegen train` hides what it imported from the cycle collector, as a process of its own may. The next test's is another."""
    yield
    gc.unfreeze()
