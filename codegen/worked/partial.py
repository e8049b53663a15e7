"""An algebra that uses only some of what it knows, so that each rule can be seen at work alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codegen.closed.algebra import Algebra

if TYPE_CHECKING:
    from sympy import Expr

MASKED = "what is masked is zero where the mask does not hold"


class Partial(Algebra):
    """The simplifier with facts switched on one after the other."""

    usable: frozenset[str] | None = None
    """The facts that may be used, by what they follow from; None for all of them."""

    def allow(self, whys: frozenset[str] | None) -> None:
        """Use these facts only."""
        if self.usable is None:
            self.known = dict(self.facts)
        self.usable = whys
        self.facts = {k: f for k, f in self.known.items() if whys is None or f[2] in whys}
        self.memo.clear()

    def unmasked(self, term: Any) -> Any:
        return super().unmasked(term) if self.usable is None or MASKED in self.usable else term

    def fact(self, why: str) -> tuple[tuple[Expr, Expr], ...]:
        """The equations that follow from `why`, each as (sum, what it is), over indices of their own."""
        from codegen.closed.algebra import Index, instantiate

        found: list[tuple[Expr, Expr]] = []
        for key, (free, value, reason) in self.known.items():
            if reason == why:
                own = {i: Index(f"_f{k}") for k, i in enumerate(free)}
                found.append((key, instantiate(value, own)))
        return tuple(found)


__all__ = ["MASKED", "Partial"]
