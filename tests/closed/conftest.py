"""Tests of the same published form stand next to each other, so that one process generates its program once."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the tests of `test_forms.py` in the order of their forms; all others stay where they are."""
    places = [k for k, item in enumerate(items) if item.path.name == "test_forms.py"]
    forms = [items[k].callspec.params["form"].name if hasattr(items[k], "callspec") else "" for k in places]
    first = {name: k for k, name in reversed(list(enumerate(forms)))}
    ordered = sorted(range(len(places)), key=lambda k: first[forms[k]])
    for place, item in zip(places, [items[places[k]] for k in ordered], strict=True):
        items[place] = item
