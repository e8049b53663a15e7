# pyright: basic
"""What a product sums first, as tensors of their own: equal ones once, called after what they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sympy as sp
from sympy import Expr, Mul, Tuple

from codegen.closed.regions.called import addition_name
from codegen.closed.regions.cells import Cell, is_positive, natural
from codegen.closed.regroup.among import signed
from codegen.closed.regroup.products import is_bracket, product_terms
from engine.indexed import Indexed
from engine.naming import free_name
from engine.notation import Index, Sigma, accesses, fresh, instantiate, name_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from codegen.closed.regroup.among import Among
    from codegen.closed.regroup.order import Group
    from codegen.closed.regroup.products import Product

LONGEST = 28
"""Letters of what a part is called after several tensors, at most."""


class Parts:
    """New tensors for the definitions of cells, made of new ones and of those that are not `gone`."""

    def __init__(self, among: Among, gone: Container[str]) -> None:
        self.among, self.gone = among, gone
        self.made: dict[str, Cell] = {}
        self.same: dict[Any, tuple[Cell, tuple[Any, ...]]] = {}
        self.shared: dict[str, Cell] = {}
        """Cells that were there, and are read for a part that would be equal."""
        self.owner: Cell
        self.ranges: dict[Any, Expr]
        """Of all indices that are met."""

    def belong(self, owner: Cell, products: Iterable[Product]) -> None:
        """The parts that come now are for a cell that is made of products."""
        self.owner = owner
        self.ranges = {**owner.ranges, **{i: n for p in products for i, n in p.limits}}

    def cell(self, name: str) -> Cell:
        """A cell by name, old or new."""
        return self.made[name] if name in self.made else self.among.known[name]

    def definition(self, number: Expr, group: Group) -> Expr:
        """A group as the definition of a cell."""
        if group.parts is None:
            return number * self.total(cast("Expr", group.factor), group.summed)
        number, one = self.access(number, group.parts[0])
        number, two = self.access(number, group.parts[1])
        return number * self.total(one * two, group.summed)

    def value(self, number: Expr, group: Group) -> Expr:
        """A group as a factor or a part, with its number."""
        number, one = self.access(number, group)
        return number * one

    def access(self, number: Expr, group: Group) -> tuple[Expr, Expr]:
        """What is left of the number, and a group as a factor of a product: a mean takes its count."""
        if group.parts is not None:
            masks = any(map(is_masking, group.parts))
            label = ("cumsum" if masks else "matmul") if group.summed else "masked" if masks else "mul"
            own = self.definition(sp.S.One, group)
            return number, self.part(own, group.indices, label) if own.has(Indexed) else own
        if not group.summed:
            return number, cast("Expr", group.factor)
        count = Mul(*[self.ranges[i] for i in group.summed])
        body = self.total(cast("Expr", group.factor), group.summed)
        mean = sp.cancel(number * count)
        if mean.count_ops() < number.count_ops() or mean in (1, -1):
            return mean, self.part(body / count, group.indices, "mean")
        return number, self.part(body, group.indices, "sum")

    def total(self, body: Expr, over: Iterable[Index]) -> Expr:
        """A sum over indices, in their order; the body itself where there are none."""
        limits = [Tuple(i, self.ranges[i]) for i in sorted(over, key=str)]
        return cast("Expr", Sigma(body, *limits)) if limits else body

    def part(self, e: Expr, indices: frozenset[Index], label: str) -> Expr:
        """A tensor of its own, or one that is equal and there already; returns the access to it."""
        pair = in_rows(e)
        order = natural(e) if pair is None else [i for a in pair for i in cast("Any", a.indices)]
        copy = {i: fresh() for i in dict.fromkeys(order) if i in indices}
        expr = instantiate(e, copy)
        taken = {*self.among.known, *self.made, *map(str, self.among.example)}
        cell = Cell(
            free_name(self.called(expr, label, pair), taken),
            tuple(copy.values()),
            tuple(self.ranges[i] for i in copy),
            expr,
            "float",
            any(self.cell(name_of(a)).differentiable for a in accesses(expr)),
            self.owner.dtype,
            positive=is_positive(expr),
        )
        key, own = signed(cell)
        found = self.same.get(key) or self.among.equal(key, self.owner.name)
        if found is None or found[0].name in self.gone:
            found = self.same[key] = cell, own
            self.made[cell.name] = cell
        elif found[0].name not in self.made:
            self.shared[found[0].name] = found[0]
        back = {j: i for i, j in copy.items()}
        where = dict(zip(found[1], (back[i] for i in own), strict=True))
        return found[0].element([where.get(i, i) for i in found[0].indices])

    def called(self, e: Expr, label: str, pair: tuple[Indexed, Indexed] | None) -> str:
        """What a part is called: `x_mean`, `x_centred`, `x_gram` for xᵀ x, `k_v` for kᵀ v, else after its owner."""
        owner = self.owner.node.name if self.owner.node is not None else self.owner.name
        tensors = list(dict.fromkeys(name_of(a) for a in (pair or accesses(e))))
        name = f"{owner}_{label}"
        if label == "add":
            name = addition_name(e, owner, {**self.among.known, **self.made})
        elif label in ("mean", "sum", "cumsum"):
            name = f"{tensors[0]}_{label}" if len(tensors) == 1 else name
        elif len(tensors) < 3:
            name = "_".join(tensors) if len(tensors) == 2 else f"{tensors[0]}_{'gram' if label == 'matmul' else label}"
        return name if len(name) <= LONGEST else f"{owner}_{label}"


def is_masking(group: Group) -> bool:
    """Whether a group is a bracket, of whose product with a tensor a triangle is left."""
    return group.factor is not None and is_bracket(group.factor)


def in_rows(e: Expr) -> tuple[Indexed, Indexed] | None:
    """The two tensors of a product in the order in which it is written without a transpose; None where that needs one."""
    products = product_terms(e)
    if products is None or len(products) != 1 or len(products[0].limits) != 1 or len(products[0].factors) != 2:
        return None
    ((s, _),) = products[0].limits
    for one, other in (products[0].factors, products[0].factors[::-1]):
        if not isinstance(one, Indexed) or not isinstance(other, Indexed):
            return None
        if one.indices[-1] == s and other.indices[0] == s:
            return one, other
    return None


__all__ = ["Parts"]
