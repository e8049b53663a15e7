# pyright: basic
"""A table of symbols kept with a symbol in every column, and what is looked up in it with a row of the batch in every column.

h[i] = Sum_t Sum_e C[x[i,t], e] w[t E + e]. With CT[e, v] = C[v, e] and the rows of w in the order (e, t), the looked-up
values are a matrix of the products' inner dimension times the batch, E[e t, i] = CT[e, x[i,t]], and so is what is passed
back to them. Their columns then are the rows of a batch, usually 32 or more, where they were places times width: products
compute columns in blocks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from codegen.loop.cost import price
from codegen.loop.graph import Node, Sized, call, called, copied, equal
from codegen.loop.kept import as_it_is

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.loop.graph import Step


def turned(step: Step, trained: Sequence[str]) -> Step:
    """The step with its table turned, or as it is where that is impossible or costs no less."""
    made, _ = copied(step)
    for product in list(made.order):
        found = Found.of(made, product, trained)
        if found is not None:
            found.turn(made)
            made.sort()
            return made if found.proven and price(made) < price(step) else step
    return step


class Found:
    """A product of looked-up rows with a matrix, and all that is passed back through it.

    Attributes:
        c: the table, (symbols, width).
        w: the matrix, (places * width, columns).
        x: the symbols, (rows, places), and `flat` all of them in one dimension.
        product: the product.
        dw: the gradient of w, a product with what was looked up.
        back: what is passed back to it, and `dc` the gradient of c that is made from that.
    """

    def __init__(self, product: Node, w: Node, c: Node, x: Node, flat: Node) -> None:
        self.product, self.w, self.c, self.x, self.flat = product, w, c, x, flat
        self.dw: Any = None
        self.back: Any = None
        self.dc: Any = None
        self.read: set[Node] = set()
        self.proven = False

    @staticmethod
    def of(step: Step, product: Node, trained: Sequence[str]) -> Found | None:
        """What is found at a product; None unless everything that reads the table, the matrix and the rows is known."""
        if product.op not in ("mm", "addmm") or product.kwargs:
            return None
        gathered, w = product.args[-2:]
        picked = gathered
        while picked.op == "view":
            picked = picked.args[0]
        if picked.op != "index_select" or picked.args[1] != 0:
            return None
        c, _, flat = picked.args
        x = flat.args[0] if flat.op == "view" else flat
        if x.op != "input" or len(x.shape) > 2 or x.shape[0] != gathered.shape[0] or len(c.shape) != 2:
            return None
        names = {n: k for k, n in step.inputs.items()}
        if names.get(c) not in trained or names.get(w) not in trained or flat.numel * c.shape[1] != gathered.numel:
            return None
        found = Found(product, w, c, x, flat)
        found.backwards(step, gathered, picked)
        return found if found.complete(step, names) else None

    def backwards(self, step: Step, gathered: Node, picked: Node) -> None:
        """Find what is passed back."""
        self.read = {gathered, picked, self.product}
        for n in step.order:
            if (n.op == "permute" and n.args[0] in (gathered, self.w)) or (n.op == "view" and n.args[0] in self.read):
                self.read.add(n)
        for n in step.order:
            if n.op != "mm":
                continue
            a, b = n.args
            if a.op == "permute" and a.args[0] is gathered:
                self.dw = n
            if b.op == "permute" and b.args[0] is self.w:
                self.back = n
        for n in step.order if self.back is not None else ():
            rows, flat = added_up(n)
            while rows is not None and rows.op == "view":
                rows = rows.args[0]
            if rows is self.back and flat is self.flat:
                self.dc = n

    def complete(self, step: Step, names: dict[Node, str]) -> bool:
        """Whether nothing else reads them, and both gradients are what is passed back and no more."""
        if self.dw is None or self.back is None or self.dc is None:
            return False
        if (
            step.results.get(f"grad.{names[self.w]}") is not self.dw
            or step.results.get(f"grad.{names[self.c]}") is not self.dc
        ):
            return False
        inner = {self.dw, self.back, self.dc, *self.read}
        users = step.users()
        chain = [self.c, self.w, self.back, *self.read - {self.product}]
        stack = list(users[self.back])
        while stack:
            n = stack.pop()
            if n.op == "view" and n not in inner:
                inner.add(n)
                stack.extend(users[n])
        return all(u in inner for n in chain for u in users[n]) and not (set(chain) & set(step.results.values()))

    def turn(self, step: Step) -> None:
        """Rewrite the step."""
        c, w, x, product = self.c, self.w, self.x, self.product
        rows, few = x.shape[0], x.value.shape[0]
        (symbols, width), (inner, columns), kind = c.shape, w.shape, c.dtype
        places = inner // width
        names = {n: k for k, n in step.inputs.items()}

        def grouped(t: Any) -> Any:
            return t.reshape(places, width, columns).permute(1, 0, 2).reshape(inner, columns)

        ct = Node("input", (), {}, (width, symbols), kind, c.value.T.contiguous(), c.name)
        wt = Node("input", (), {}, w.shape, w.dtype, grouped(w.value), w.name)
        split, order = (places, width, columns), (1, 0, 2)
        for n, made in ((c, ct), (w, wt)):
            name = names[n]
            step.inputs[name] = made
            step.order.insert(step.order.index(n), made)
            kept = step.kept.get(name, as_it_is(name, n.shape))
            step.kept[name] = kept.changed(
                lambda p, n=n: (
                    replace(p, at=((0, width), (0, symbols)), order=(1, 0))
                    if n is c
                    else replace(p, split=split, order=order)
                )
            )
        count = Sized(rows, few)
        symbols_by_place = Node(
            "turned",
            (x,),
            {},
            (rows * places,),
            x.dtype,
            x.value.reshape(few, places).T.reshape(-1),
            f"{x.name}_turned",
        )
        picked = call("index_select", ct, 1, symbols_by_place, shape=(width, rows * places), dtype=kind)
        shaped = call("view", picked, [inner, count], shape=(inner, rows), dtype=kind, name=f"{self.name()}_T")
        back_to_rows = call("permute", shaped, [1, 0], shape=(rows, inner), dtype=kind, name=self.name())
        again = call(
            product.op, *product.args[:-2], back_to_rows, wt, shape=product.shape, dtype=kind, name=product.name
        )
        step.insert([symbols_by_place, picked, shaped, back_to_rows, again], product)
        step.replace(product, again)
        cotangent = self.dw.args[1]
        dw = call("mm", shaped, cotangent, shape=w.shape, dtype=kind, name=self.dw.name)
        step.insert([dw], self.dw)
        cotangent = self.back.args[0]
        across = call("permute", cotangent, [1, 0], shape=(columns, rows), dtype=kind)
        passed = call("mm", wt, across, shape=(inner, rows), dtype=kind, name=f"{called(self.back) or 'd'}_T")
        flat = call(
            "view", passed, [width, Sized(rows * places, few * places)], shape=(width, rows * places), dtype=kind
        )
        point = symbols_by_place.value[:, None] == torch.arange(symbols)
        hot = Node(
            "onehot",
            (symbols_by_place, symbols),
            {},
            (rows * places, symbols),
            kind,
            point.to(c.value.dtype),
            f"{symbols_by_place.name}_onehot",
        )
        dc = call("mm", flat, hot, shape=(width, symbols), dtype=kind, name=self.dc.name)
        step.insert([across, passed, flat, hot, dc], self.dc)
        same = [(again, product.value), (dw, grouped(self.dw.value)), (dc, self.dc.value.T)]
        self.proven = all(equal(n.value, value) for n, value in same)
        step.results[f"grad.{names[c]}"], step.results[f"grad.{names[w]}"] = dc, dw
        step.readers = None

    def name(self) -> str:
        """What the looked-up rows are called."""
        return called(self.product.args[-2]) or "rows"


def added_up(n: Node) -> tuple[Node | None, Node | None]:
    """Rows that a call adds up by symbol, and their symbols."""
    if n.op == "mm" and n.args[0].op == "permute" and n.args[0].args[0].op == "onehot":
        return n.args[1], n.args[0].args[0].args[0]
    if n.op == "index_add" and n.args[0].constant is not None and not bool(n.args[0].constant.any()) and not n.kwargs:
        return n.args[3], n.args[2]
    return None, None


__all__ = ["turned"]
