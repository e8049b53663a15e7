"""Settings of the whole suite: the same examples in every run, and no deadline on a busy machine."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    """`codegen train` hides what it imported from the cycle collector, as a process of its own may. The next test's is another."""
    yield
    gc.unfreeze()
