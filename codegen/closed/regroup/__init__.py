"""Products of products in the order that moves least."""

from codegen.closed.regroup.search import RULE, regrouped

__all__ = ["RULE", "regrouped"]
