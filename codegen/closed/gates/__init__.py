"""What a closed form must pass before it is used: it is equal to the derivation, and it is as accurate as autograd.

A gate that cannot be evaluated refuses.
"""

from codegen.closed.gates.accuracy import above, accurate
from codegen.closed.gates.equality import equal
from codegen.closed.gates.faithful import faithful
from codegen.closed.gates.large import finite_at_large
from codegen.closed.gates.verdict import Verdict

__all__ = ["Verdict", "above", "accurate", "equal", "faithful", "finite_at_large"]
