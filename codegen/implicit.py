"""What an output passes back that an equation defines, or an expansion of determinants.

An equation E(X, A, ...) = 0 stays true as A moves: `dE/dX · δX = -dE/dA · δA`. With the adjoint λ, which solves the transposed
system `Σ_i λ[i] dE[i]/dX[k] = dX[k]` for the cotangent dX, the cotangents of all operands are `-Σ_i λ[i] dE[i]/dA[k]`. Both sums
are the derivatives of the equation by sympy, as those of any definition; what is left to be known is how a linear system is
solved, which is a matter of its matrix: a triangular one, any other, or one whose inverse is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, cast

import sympy as sp
from sympy import Expr, Mul

from codegen.derive import COT, Contribution, partials, pulled_back, vjp
from codegen.formula import named
from codegen.lowering import tensors as tt
from codegen.ownoutput import OUT
from engine.errors import DerivationError
from engine.implicit import DETERMINANT, UNKNOWN, Equation, Expansion
from engine.indexed import Indexed, IndexedBase
from engine.notation import Delta, Sigma, accesses, base, canonical, element, fresh, name_of, sigma
from engine.table import Definition, indices_of

if TYPE_CHECKING:
    from codegen.lowering.tensors import T
    from engine.graph import Graph, Node
    from engine.implicit import Implicit
    from engine.naming import Namer

ADJOINT, INVERSE, PRODUCT = "_adjoint", "_inverse", "_product"
"""In a template: the adjoint of an equation, the inverse of an expansion's matrix, and what is computed on the way to one."""


@dataclass(frozen=True)
class Auxiliary:
    """A tensor that the backward of an implicit node computes first: `name` in templates, of this shape.

    `equation` says what it solves, at `indices`: a pair of sides. `lines` compute it, of which the last is the tensor
    itself, the others are `PRODUCT`s.
    """

    name: str
    shape: tuple[Expr, ...]
    indices: tuple[Expr, ...]
    equation: tuple[Expr, Expr]
    lines: tuple[T, ...]
    rule: str


def passed(law: Definition | Implicit, position: int, shape: tuple[Expr, ...]) -> Contribution:
    """The cotangent of operand `position` (of this shape) that an op's output passes back, over placeholders."""
    return vjp(law, position, shape) if isinstance(law, Definition) else implied(law, position, shape)


def law_of(node: Node) -> Definition | Implicit | None:
    """What says how a node follows from its operands; None for inputs and what has no derivative."""
    return node.template if node.template is not None else node.implicit


@cache
def implied(law: Implicit, position: int, shape: tuple[Expr, ...]) -> Contribution:
    """What an equation or an expansion passes back to one operand, over its auxiliary tensor."""
    if isinstance(law, Expansion):
        return expanded(law, shape)
    less = Definition(law.shape, law.indices, -law.expr)
    part = pulled_back(less, f"_{position}", shape, own=False)
    return replace(part, expr=part.expr.xreplace({base(COT): base(ADJOINT)}))


def expanded(law: Expansion, shape: tuple[Expr, ...]) -> Contribution:
    """`f'(det) c[i,j]`, as the cofactors read nothing of their row; by the equation of the cofactors, c[i,j] = det A⁻¹[j,i]."""
    at = indices_of(shape)
    *lead, i, j = at
    slope = sp.simplify(sp.diff(law.expr, DETERMINANT) * DETERMINANT)
    out = element(base(OUT), lead)
    slope = slope.xreplace({DETERMINANT: out}) if law.expr == DETERMINANT else slope
    if slope.has(DETERMINANT):
        raise DerivationError(f"the derivative of {law.expr} is not written with its value")
    expr = element(base(COT), lead) * slope * element(base(INVERSE), [*lead, j, i])
    rule = "expansion along a row, whose cofactors do not read it; det A⁻¹[j,i] is the cofactor [i,j]"
    return Contribution(at, shape, expr, (rule,))


# -- what an equation says of its inverse -----------------------------------------------------------------------------


def inverse_of(law: Implicit) -> IndexedBase | None:
    """The tensor whose inverse an equation's output is: Σ_j A[i,j] X[j,k] is one where i = k, and zero elsewhere."""
    if not isinstance(law, Equation) or len(law.indices) - law.lead != 2:
        return None
    *lead, i, k = law.indices
    if law.right != Delta(i, k):
        return None
    if i == 0:  # of one row: A X = 1
        found = [a for a in Mul.make_args(law.left) if isinstance(a, Indexed) and name_of(a) != UNKNOWN]
        return cast("IndexedBase", found[0].base) if len(found) == 1 and len(Mul.make_args(law.left)) == 2 else None
    factors = Mul.make_args(law.left.body) if isinstance(law.left, Sigma) else ()
    own = [f for f in factors if isinstance(f, Indexed) and name_of(f) == UNKNOWN]
    matrix = [f for f in factors if isinstance(f, Indexed) and name_of(f) != UNKNOWN]
    if len(factors) != 2 or len(own) != 1 or len(matrix) != 1:
        return None
    j = matrix[0].indices[-1]
    good = matrix[0].indices == (*lead, i, j) and own[0].indices == (*lead, j, k)
    return cast("IndexedBase", matrix[0].base) if good else None


# -- linear systems ---------------------------------------------------------------------------------------------------


@cache
def auxiliary(law: Implicit, shapes: tuple[tuple[Expr, ...], ...]) -> Auxiliary:
    """The tensor that is computed before anything is passed back. `shapes` are those of the operands.

    Raises DerivationError for an equation whose adjoint no rule solves.
    """
    if isinstance(law, Expansion):
        return inverted(law, shapes[law.matrix])
    part = pulled_back(Definition(law.shape, law.indices, law.expr), UNKNOWN, law.shape, own=False)
    left = part.expr.xreplace({base(COT): base(ADJOINT)})
    if law.symmetric:
        return congruent(law, left, part)
    sides = left, element(base(COT), part.indices)
    if inverse_of(law) is not None:  # Σ_i A[i,j] λ[i,k] = dX[j,k] for A X = 1
        line = tt.binary("@", tt.attribute(tt.name(OUT), "mT"), tt.name(COT))
        return Auxiliary(
            ADJOINT, law.shape, part.indices, sides, (line,), "the adjoint equation, solved by the inverse itself"
        )
    line = solved(left, part.indices, law.lead)
    return Auxiliary(ADJOINT, law.shape, part.indices, sides, (line,), "the adjoint equation, solved")


def inverted(law: Expansion, shape: tuple[Expr, ...]) -> Auxiliary:
    """The inverse of an expansion's matrix, which its cofactors are over the determinant."""
    *lead, i, k = at = indices_of(shape)
    j = fresh()
    matrix, inverse = base(f"_{law.matrix}"), base(INVERSE)
    left = sigma(element(matrix, [*lead, i, j]) * element(inverse, [*lead, j, k]), (j, law.size))
    line = tt.call("torch.linalg.inv", tt.name(f"_{law.matrix}"))
    return Auxiliary(INVERSE, shape, at, (left, Delta(i, k)), (line,), "cofactors over the determinant are the inverse")


def solved(left: Expr, at: tuple[Expr, ...], lead: int) -> T:
    """The adjoint λ of which `left` at `at` is the cotangent: Σ_s T[s,r] λ[s] = dX[r].

    T is one tensor's matrix, or a triangle of it, or the product of a triangle with its transpose.
    """
    cot, row = tt.name(COT), at[lead]
    plain = [t for t in sp.Add.make_args(left) if isinstance(t, Indexed) and name_of(t) == ADJOINT]
    rest = [t for t in sp.Add.make_args(left) if t not in plain]
    if not rest:
        return cot
    if row == 0:
        return divided(left, len(at) == lead + 1)
    if len(rest) != 1 or not isinstance(rest[0], Sigma):
        raise unsolved(left)
    summed = [i for i, _ in rest[0].limits]
    factors = Mul.make_args(rest[0].body)
    read = [f for f in factors if isinstance(f, Indexed)]
    brackets = [f for f in factors if not isinstance(f, Indexed)]
    matrices = [f for f in read if name_of(f) != ADJOINT]
    s = next((s for s in summed for f in read if f not in matrices and f.indices == put(at, lead, s)), None)
    if s is None or len(read) != len(matrices) + 1 or len({name_of(m) for m in matrices}) != 1:
        raise unsolved(left)
    tensor = tt.name(name_of(matrices[0]))
    middle = [i for i in summed if i != s]
    if len(middle) == 1 and len(matrices) == 2 and not plain:
        kinds = {factor_of(matrices, brackets, end, middle[0]) for end in (s, row)}
        if kinds not in ({"lower"}, {"upper"}):
            raise unsolved(left)
        return tt.call("torch.cholesky_solve", cot, tensor, **({"upper": True} if kinds == {"upper"} else {}))
    ends = matrices[0].indices[-2:]
    if middle or len(matrices) != 1 or ends not in ((s, row), (row, s)):
        raise unsolved(left)
    matrix = tt.attribute(tensor, "mT") if ends == (s, row) else tensor
    if not brackets and not plain:
        return tt.call("torch.linalg.solve", matrix, cot)
    held, unit = table_of(brackets, row, s), int(bool(plain))
    if held not in (((1 - unit, 1), (0, 1 - unit)), ((1 - unit, 0), (1, 1 - unit))):
        raise unsolved(left)
    options = {"upper": held[0][1] == 1, **({"unitriangular": True} if unit else {})}
    return tt.call("torch.linalg.solve_triangular", matrix, cot, **options)


def put(at: tuple[Expr, ...], place: int, index: Expr) -> tuple[Expr, ...]:
    """Indices with another one at a place."""
    return (*at[:place], index, *at[place + 1 :])


def table_of(brackets: list[Expr], row: Expr, column: Expr) -> tuple[tuple[Expr, ...], ...]:
    """Where a product of brackets holds, in rows and columns 0 and 1."""
    whole = Mul(*brackets)
    return tuple(tuple(whole.xreplace({row: sp.Integer(r), column: sp.Integer(c)}) for c in range(2)) for r in range(2))


def factor_of(matrices: list[Indexed], brackets: list[Expr], end: Expr, middle: Expr) -> str:
    """Whether the matrix that is read at `end` is a lower triangle L of L Lᵀ or an upper one U of Uᵀ U; "" for neither."""
    own = [m for m in matrices if {*m.indices[-2:]} == {end, middle}]
    held = table_of([b for b in brackets if {*b.args} == {end, middle}], end, middle)
    if len(own) != 1 or held != ((1, 0), (1, 1)):
        return ""
    return "lower" if own[0].indices[-2:] == (end, middle) else "upper"


def divided(left: Expr, vector: bool) -> T:
    """The adjoint of one unknown: the cotangent over what it is multiplied by, entries of matrices that have no other."""
    (own,) = accesses(left, ADJOINT)
    value = tt.name(COT)
    for f in Mul.make_args(sp.cancel(left / own)):
        matrix, power = f.as_base_exp()
        if not isinstance(matrix, Indexed) or name_of(matrix) == ADJOINT or not power.is_Integer:
            raise unsolved(left)
        entry = tt.name(name_of(matrix))
        entry = tt.item(entry, tt.name("..."), tt.number(0)) if vector else entry
        value = tt.binary("/", value, entry if power == 1 else tt.binary("**", entry, tt.number(int(power))))
    return value


def unsolved(left: Expr) -> DerivationError:
    """What is said of an adjoint equation that no rule solves."""
    return DerivationError(f"no rule solves the linear equation whose left side is {left}")


def congruent(law: Equation, left: Expr, part: Contribution) -> Auxiliary:
    """For X Xᵀ = A with X lower triangular: the symmetric λ with 2 λ X = dX in the lower triangle.

    Xᵀ times what is strictly above the diagonal stays there, so that P = tril(Xᵀ dX) is the lower triangle of the symmetric
    2 Xᵀ λ X: with its mirror image below it, 2 λ = X⁻ᵀ (P + strict(P)ᵀ) X⁻¹. The adjoint of symmetric sides is symmetric.
    """
    *lead, i, j = law.indices
    k = fresh()
    n = law.shape[-1]
    x = base(UNKNOWN)
    product = sigma(element(x, [*lead, i, k]) * element(x, [*lead, j, k]), (k, n))
    if canonical(law.left) != canonical(product) or accesses(law.right, UNKNOWN):
        raise unsolved(left)
    out, cot, own = tt.name(OUT), tt.name(COT), tt.name(PRODUCT)
    lower = tt.method(tt.binary("@", tt.attribute(out, "mT"), cot), "tril")
    mirrored = tt.binary("+", own, tt.attribute(tt.method(own, "tril", tt.number(-1)), "mT"))
    right = tt.call("torch.linalg.solve_triangular", out, mirrored, upper=False, left=False)
    whole = tt.call("torch.linalg.solve_triangular", tt.attribute(out, "mT"), right, upper=True)
    lines = (lower, tt.binary("/", whole, tt.number(2)))
    rule = "the adjoint equation, solved in the lower triangle: both sides times Xᵀ, which keeps it one"
    equation = (left, element(base(COT), part.indices))
    return Auxiliary(ADJOINT, law.shape, part.indices, equation, lines, rule)


# -- in a graph -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Helper:
    """The auxiliary tensor of one node: its `name` in the graph, what placeholders stand for, and its statements.

    There are none where a tensor of the forward is what is needed.
    """

    name: str
    auxiliary: Auxiliary
    names: dict[str, str]
    statements: tuple[tuple[str, T], ...]

    @property
    def formula(self) -> tuple[Expr, Expr, tuple[Expr, ...]]:
        """Both sides of what it solves in this graph's names, and their indices."""
        left, right = (named(e, self.names) for e in self.auxiliary.equation)
        return left, right, self.auxiliary.indices


def helper_of(graph: Graph, node: Node, cotangent: str, namer: Namer) -> Helper | None:
    """The tensor that a node's backward computes from its cotangent before anything is passed back; None where there is no equation."""
    law = node.implicit
    if law is None:
        return None
    found = auxiliary(law, node.operand_shapes)
    names = {f"_{k}": o for k, o in enumerate(node.operands)} | {OUT: node.name, COT: cotangent}
    if isinstance(law, Expansion):
        matrix = node.operands[law.matrix]
        there = next((m.name for m in graph.nodes if is_inverse(m, matrix)), None)
        if there is not None:
            return Helper(there, found, {**names, INVERSE: there}, ())
        label = namer(f"{matrix}_inverse")
    else:
        label = namer(f"{node.name}_adjoint")
    names[found.name] = label
    sizes = dict(node.sizes)
    statements: list[tuple[str, T]] = []
    for line in found.lines[:-1]:
        names[PRODUCT] = namer(f"{node.name}_product")
        statements.append((names[PRODUCT], tt.rename(line, names, sizes)))
    statements.append((label, tt.rename(found.lines[-1], names, sizes)))
    return Helper(label, found, names, tuple(statements))


def is_inverse(node: Node, matrix: str) -> bool:
    """Whether a node of the forward is the inverse of the matrices of that name."""
    tensor = None if node.implicit is None else inverse_of(node.implicit)
    return tensor is not None and node.operands[int(str(tensor.label)[1:])] == matrix


# -- what is told -----------------------------------------------------------------------------------------------------


def moved(law: Equation, names: dict[str, str]) -> Expr:
    """How much an equation's left side less its right moves, where each tensor moves by the one that `names` has for it."""
    total: Expr = sp.S.Zero
    for tensor in dict.fromkeys(a.base for a in accesses(law.expr)):
        label = str(tensor.label)
        for coefficient, access, limits in partials(law.expr, cast("IndexedBase", tensor)):
            step = element(base(names.get(label, label)), access.indices)
            total = total + sigma(coefficient * step, *limits)
    return total


__all__ = ["ADJOINT", "INVERSE", "PRODUCT", "Auxiliary", "Helper", "helper_of", "law_of", "moved", "passed"]
