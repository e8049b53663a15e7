"""Settings of the whole suite: the same examples in every run, and no deadline on a busy machine.

`SUITE_SEED=1 pytest` runs it on other random numbers. Tests that are `sampled` repeat over hundreds of cases of a kind: a run
of everything takes every fifth case of them, `SUITE=all pytest` all. Where tests are named (a file, `-k`), all of these are run.
"""

import gc
import os
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import settings

settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

SHARE = 5
SAMPLED = "sampled(argument): a run of everything takes every fifth case, told by this argument of the test"


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marks mean."""
    config.addinivalue_line("markers", SAMPLED)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell the processes of pytest-xdist, which are given every path by name, whether everything is run."""
    node.workerinput["everything"] = everything(node.config)


def everything(config: pytest.Config) -> bool:
    """Whether a run is of everything: no tests are named."""
    told = getattr(config, "workerinput", None)
    if told is not None:
        return bool(told["everything"])
    named = config.option.keyword or config.option.markexpr or config.args_source is not config.ArgsSource.TESTPATHS
    return not named


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out four of five cases of sampled tests, the same ones in every run."""
    if not everything(config) or os.environ.get("SUITE") == "all":
        return
    left = [item for item in items if not in_sample(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if in_sample(item)]


def in_sample(item: pytest.Item) -> bool:
    """Whether a test is run among everything."""
    mark, cases = item.get_closest_marker("sampled"), getattr(item, "callspec", None)
    if mark is None or cases is None:
        return True
    case = cases.params[mark.args[0]]
    name = getattr(case, "name", None) or getattr(case, "__name__", None) or str(case)
    return zlib.crc32(name.encode()) % SHARE == 0


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """A test draws its own numbers, whichever tests ran before it in this process."""
    torch.manual_seed(zlib.crc32(f"{request.node.nodeid} {os.environ.get('SUITE_SEED', '')}".encode()))


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    """`codegen train` hides what it imported from the cycle collector, as a process of its own may. The next test's is another."""
    yield
    gc.unfreeze()
