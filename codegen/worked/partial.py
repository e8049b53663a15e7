"""An algebra that uses only some of what it knows, so that each rule can be seen at work alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codegen.closed.algebra.algebra import Algebra
from codegen.closed.algebra.masks import MASKED
from engine.notation import Index, instantiate

if TYPE_CHECKING:
    from sympy import Expr


class Partial(Algebra):
    """The simplifier with facts switched on one after the other."""

    def allow(self, whys: frozenset[str] | None) -> None:
        """Use these facts only."""
        self.facts.usable = whys
        self.memo.clear()

    def unmasked(self, term: Any) -> Any:
        usable = self.facts.usable
        return super().unmasked(term) if usable is None or MASKED in usable else term

    def fact(self, why: str) -> tuple[tuple[Expr, Expr], ...]:
        """The equations that follow from `why`, each as (sum, what it is), over indices of their own."""
        found: list[tuple[Expr, Expr]] = []
        for key, (free, value, reason) in self.facts.known.items():
            if reason == why:
                own = {i: Index(f"_f{k}") for k, i in enumerate(free)}
                found.append((key, instantiate(value, own)))
        return tuple(found)


__all__ = ["Partial"]
