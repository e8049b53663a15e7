"""Sample calls for every row of the op table, by the row's name. A row without samples fails the tests."""

from tests.ops.samples import (  # in the order they are drawn
    elementwise,
    layers,
    layout,
    losses,
    places,
    recurrent,
    reductions,
    variants,
)
from tests.ops.samples.call import Call

_FIRST: dict[str, list[Call]] = {
    **elementwise.SAMPLES,
    **layout.SAMPLES,
    **reductions.SAMPLES,
    **places.SAMPLES,
    **losses.SAMPLES,
    **layers.SAMPLES,
    **recurrent.SAMPLES,
}
SAMPLES = {name: [*_FIRST.get(name, ()), *variants.SAMPLES.get(name, ())] for name in {**_FIRST, **variants.SAMPLES}}

__all__ = ["SAMPLES", "Call"]
