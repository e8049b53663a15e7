"""`check`: the emitted program against autograd, node by node, and both against the high-precision truth."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from codegen.judge import Judge, Row
from codegen.measure import difference
from codegen.ownrows import row_differences
from codegen.reference import Reference, autograd, own_run, same_randomness, values_of
from codegen.rounding import Rounding
from codegen.truth import Truth, default_number, masks_of
from engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from codegen.program import Program

CRASHES = (ArithmeticError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError)
"""What emitted code that is wrong may raise. Nothing of it is a pass."""


@dataclass(frozen=True)
class Report:
    """The outcome of a check.

    Attributes:
        name: the program's name.
        mode: "steps" or "closed".
        dtype: the floating-point type of the inputs.
        rows: one per gradient, in the program's own order.
        values: one per tensor that the emitted forward returned or saved.
        problems: what is wrong beyond single rows: a gradient that is missing, code that raised.
    """

    name: str
    mode: str
    dtype: str
    rows: tuple[Row, ...]
    values: tuple[Row, ...]
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything agrees: no row is a mismatch, nothing is missing, nothing raised."""
        return bool(self.values) and not self.problems and all(r.ok for r in (*self.rows, *self.values))

    @property
    def exact_count(self) -> str:
        """How many gradients equal autograd's bit for bit: `26 of 26`."""
        return f"{sum(r.exact for r in self.rows)} of {len(self.rows)}"

    @property
    def failures(self) -> tuple[str, ...]:
        """One line per thing that is wrong."""
        bad = [f"{r.name}: {r.note}" for r in (*self.values, *self.rows) if not r.ok]
        return (*self.problems, *bad)

    def __getitem__(self, name: str) -> Row:
        """The row of a gradient."""
        return next(r for r in self.rows if r.name == name)

    def __repr__(self) -> str:
        verdict = "ok" if self.ok else "; ".join(self.failures)
        return f"Report({self.name!r}, {self.dtype}, {self.mode}: {self.exact_count} exact, {verdict})"


def check(
    program: Program,
    *inputs: Any,
    grad_out: Any = None,
    forward: Callable[..., Any] | nn.Module | None = None,
    digits: int | None = None,
    samples: int = 4,
    truth: bool = True,
    seed: int = 0,
) -> Report:
    """Compare a program's gradients with autograd's, tensor by tensor.

    Args:
        program: what `codegen.generate` returned.
        inputs: the arguments of the forward: any sizes that the trace allows, float32 or float64.
        grad_out: the cotangent of the result. By default 1 for a scalar, a seeded random tensor for anything else.
        forward: the user's own forward, to be run besides the recorded one; by default what the program was generated from.
        digits: decimal digits of the truth (mpmath); by default longdoubles, about 19.
        samples: entries per tensor at which the truth is evaluated, the worst difference among them.
        truth: whether to fill in the errors of rows that agree. Rows that differ are always held against the truth.
        seed: of the random cotangent and of the choice of entries.

    Returns:
        A report; `report.ok` says whether all is well. Emitted code that raises gives a report that is not ok.

    Raises:
        InputError: inputs that the program or torch itself does not take.
    """
    with (
        warnings.catch_warnings()
    ):  # what torch has to say of a forward at uncomfortable inputs is not of interest here
        warnings.simplefilter("ignore")
        return _checked(program, inputs, grad_out, forward, digits, samples, truth, seed)


def _checked(
    program: Program,
    inputs: Sequence[Any],
    grad_out: Any,
    forward: Callable[..., Any] | nn.Module | None,
    digits: int | None,
    samples: int,
    truth: bool,
    seed: int,
) -> Report:
    graph = program.graph
    tensors = program.tensors(inputs)
    seeds = _cotangents(graph.outputs, values_of(graph, tensors), grad_out, seed)
    reference = autograd(graph, tensors, seeds)
    number = digits or default_number()
    true = Truth(
        graph, dict(zip(graph.inputs, tensors, strict=True)), seeds, masks_of(graph, reference.values), number, seed
    )
    dtype = next((str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()), "int64")

    rounding = Rounding(program, tensors, seeds, reference, seed)
    problems: list[str] = []
    values: list[Row] = []
    rows: list[Row] = []
    run = _run(program, inputs, seeds)
    if isinstance(run, str):
        problems.append(run)
    else:
        results = {name: run.values[name] for name in graph.outputs}
        judge = Judge(graph, reference, rounding, true, results, samples, truth, seed)
        values = [judge.value(name, t) for name, t in run.values.items()]
        rows = [judge.gradient(key, t) for key, t in run.gradients.items()]
        problems += _missing(program, run.gradients, reference)
        problems += _cotangent_handling(run)
    problems += row_differences(graph, dict(zip(graph.inputs, tensors, strict=True)), reference.values)
    own = forward or program.owner or program.original
    if own is not None:
        problems += _trace_differences(program, own, inputs, tensors, seeds, rounding)
    return Report(graph.name, program.mode, dtype, tuple(rows), tuple(values), tuple(problems))


def _cotangents(outputs: Sequence[str], values: dict[str, Tensor], grad_out: Any, seed: int) -> list[Tensor | None]:
    """One cotangent per output; None for outputs that are not floating-point."""
    if grad_out is not None:
        many = isinstance(grad_out, (list, tuple))
        given = list(cast("list[Tensor | None]", grad_out)) if many else [cast("Tensor | None", grad_out)]
        if len(given) != len(outputs):
            raise InputError(f"{len(given)} cotangents were given for {len(outputs)} outputs")
        return given
    generator = torch.Generator().manual_seed(seed)
    out: list[Tensor | None] = []
    for name in outputs:
        v = values[name]
        if not v.is_floating_point():
            out.append(None)
        elif v.dim() == 0 and len(outputs) == 1:
            out.append(torch.ones_like(v))
        else:
            out.append(torch.randn(v.shape, generator=generator, dtype=torch.float64).to(v.dtype))
    return out


@dataclass(frozen=True, eq=False)
class _Run:
    """What the emitted code gave: values by node name, and gradients for the cotangent, for ones, and for twice of it."""

    values: dict[str, Tensor]
    gradients: dict[str, Tensor]
    defaults: dict[str, Tensor]
    ones: dict[str, Tensor]
    doubled: dict[str, Tensor]


def _run(program: Program, inputs: Sequence[Any], seeds: list[Tensor | None]) -> _Run | str:
    """Execute the emitted code; if it raises, say so."""

    def given(cotangents: list[Tensor | None]) -> Any:
        return cotangents[0] if program.graph.single else cotangents

    try:
        with same_randomness():
            out, saved = program.forward(*inputs)
        results = cast("list[Tensor]", pytree.tree_leaves(out))
        return _Run(
            _made(program, out, saved),
            program.backward(saved, given(seeds)),
            program.backward(saved),
            program.backward(saved, given([_ones(r) if r.is_floating_point() else None for r in results])),
            program.backward(saved, given([None if g is None else 2 * g for g in seeds])),
        )
    except CRASHES as error:
        return f"the emitted code raised {type(error).__name__}: {error}"


def _ones(result: Tensor) -> Tensor:
    """Ones in rows, as `backward` makes them: in a result's own order of memory a product may be rounded otherwise."""
    return torch.ones(result.shape, dtype=result.dtype, device=result.device)


def _made(program: Program, out: Any, saved: Any) -> dict[str, Tensor]:
    """The tensors of the emitted forward by node name: results, and in steps mode what it saved under a node's name."""
    graph = program.graph
    made = dict(zip(graph.outputs, cast("list[Tensor]", pytree.tree_leaves(out)), strict=True))
    known = graph.by_name
    kept: dict[str, Any] = saved._asdict() if hasattr(saved, "_asdict") else {}
    for name, t in kept.items():
        if name in known and not known[name].is_input and isinstance(t, Tensor):
            made.setdefault(name, t)
    return made


def _missing(program: Program, grads: dict[str, Tensor], reference: Reference) -> list[str]:
    """Gradients that autograd has and the program does not return: of wanted inputs always, in steps mode of every node."""
    graph = program.graph
    wanted = program.wrt if program.wrt is not None else program.input_keys
    problems = [f"{key}: no gradient was returned for this input" for key in wanted if key not in grads]
    if program.mode == "steps":
        for node in graph.nodes:
            g = reference.gradients[node.name]
            if not node.is_input and graph.key(node.name) not in grads and g is not None and bool((g != 0).any()):
                problems.append(f"{node.name}: autograd has a gradient here and the program returned none")
    return problems


def _cotangent_handling(run: _Run) -> list[str]:
    """`backward(saved)` must mean a cotangent of ones, and twice the cotangent twice the gradients."""
    problems: list[str] = []
    for key, g in run.gradients.items():
        if not _same(run.defaults.get(key), run.ones.get(key)):
            problems.append(f"{key}: backward(saved) is not backward(saved, ones)")
        twice = run.doubled.get(key)
        if twice is None or not torch.allclose(twice, 2 * g, rtol=1e-3, equal_nan=True):
            problems.append(f"{key}: twice the cotangent does not give twice the gradient")
    return problems


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and difference(a, b).exact


def _trace_differences(
    program: Program,
    forward: Callable[..., Any] | nn.Module,
    inputs: Sequence[Any],
    tensors: Sequence[Tensor],
    seeds: Sequence[Tensor | None],
    rounding: Rounding,
) -> list[str]:
    """Where the user's own forward and the recorded one disagree: the trace would be wrong, and everything after it."""
    reference = rounding.reference
    known = not reference.by_definition
    own = own_run(program.graph, forward, inputs, tensors, seeds if known else [None] * len(seeds))
    problems: list[str] = []
    for name, value in own.values.items():
        kinds = [str(t.dtype).removeprefix("torch.") for t in (value, reference.values[name])]
        if kinds[0] != kinds[1]:
            problems.append(f"{name}: the forward itself returns it in {kinds[0]}, what was recorded in {kinds[1]}")
        elif not _alike(value, reference.values[name]):
            problems.append(f"{name}: the recorded forward does not compute what the forward itself does")
    for name, gradient in own.gradients.items() if known else ():
        recorded = reference.gradients[name]
        if gradient is None or recorded is None:
            same = gradient is None or not bool((gradient != 0).any())
            same = same and (recorded is None or not bool((recorded != 0).any()))
        else:
            same = _alike(gradient, recorded) or rounding.explains(name, gradient, recorded)
        if not same:
            problems.append(
                f"{program.graph.key(name)}: autograd of the recorded forward is not that of the forward itself"
            )
    return problems


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and difference(a, b).allclose
