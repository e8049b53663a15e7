"""What a closed form must pass before it is used: it is equal to the derivation, and it is as accurate as autograd.

A gate that cannot be evaluated refuses.
"""

from codegen.closed.gates.accuracy import above, accurate
from codegen.closed.gates.equality import equal
from codegen.closed.gates.errors import Trial
from codegen.closed.gates.faithful import faithful
from codegen.closed.gates.large import not_finite
from codegen.closed.gates.sizes import sizes_given, sizes_to_measure, small_sizes
from codegen.closed.gates.verdict import Verdict

__all__ = [
    "Trial", "Verdict", "above", "accurate", "equal", "faithful", "not_finite", "sizes_given", "sizes_to_measure", "small_sizes",
]  # fmt: skip
