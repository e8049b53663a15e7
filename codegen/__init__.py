"""Derive, simplify, emit, check and train: from a traced forward to a backward that a person can read."""

from typing import TYPE_CHECKING

from engine.lazy import lazy

if TYPE_CHECKING:
    from codegen.check import Report, check
    from codegen.derivation import Derivation, derive
    from codegen.program import Program, generate

__all__ = ["Derivation", "Program", "Report", "check", "derive", "generate"]
__getattr__ = lazy(
    __name__,
    {
        "Derivation": "codegen.derivation",
        "Program": "codegen.program",
        "Report": "codegen.check",
        "check": "codegen.check",
        "derive": "codegen.derivation",
        "generate": "codegen.program",
    },
)
