"""Derive, simplify, emit, check and train: from a traced forward to a backward that a person can read."""

from codegen.check import Report, check
from codegen.derivation import Derivation, derive
from codegen.program import Program, generate

__all__ = ["Derivation", "Program", "Report", "check", "derive", "generate"]
