"""Sample calls for every row of the op table, by the row's name. A row without samples fails the tests."""

from tests.ops.samples import (  # in the order they are drawn
    elementwise,
    equations,
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
_ALL = (_FIRST, variants.SAMPLES, equations.SAMPLES)
SAMPLES = {name: [c for part in _ALL for c in part.get(name, ())] for name in {n: None for part in _ALL for n in part}}

__all__ = ["SAMPLES", "Call"]
