"""`program.trainer(...)`: parameters, and steps of gradient descent on them through an emitted loop."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Generator, Tensor

from codegen.loop.plan import Plan, inputs_of, rows_of
from engine.collection import few_collections
from engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from codegen.fromstart import Refused
    from codegen.program import Program

Watch = "Callable[[int, dict[str, Tensor]], None]"


class LoopTrainer:
    """Takes steps on copies of the parameters it was given.

    Attributes:
        params: current values by name, in the order they were given.
        buffers: current values of the forward's own buffers (running statistics) by name.
        source: the emitted loop, once `run` has been called; empty where there is none.
        path: how steps are taken, once `run` has been called: by an emitted loop, or one at a time, and why.
    """

    def __init__(
        self,
        module: ModuleType,
        params: Mapping[str, Tensor],
        batch_size: int = 32,
        lr: float = 0.1,
        momentum: float = 0.0,
        compile: bool = False,
        plan: Plan | None = None,
        name: str = "forward",
        keys: Mapping[str, str] | None = None,
        ready: Callable[[Sequence[Tensor]], ModuleType | None] | None = None,
        fits: Callable[[Sequence[Tensor]], object] | None = None,
        mixed: Callable[[Sequence[Tensor]], str] | None = None,
        refused: Mapping[str, Refused] | None = None,
    ) -> None:
        """`keys` gives an input's name in `params` where it has another one; `ready` finds a loop that was emitted before;
        `fits` raises InputError for inputs that the forward was not traced for; `mixed` says which two of them differ in
        dtype and did not in the trace; `refused` are batch inputs of which all data are looked at before any step.
        """
        batch_size = whole("trainer: batch_size", batch_size, 1)
        lr, momentum = real("trainer: lr", lr), real("trainer: momentum", momentum)
        self.module, self.batch_size, self.lr, self.momentum, self.compile = module, batch_size, lr, momentum, compile
        self.plan = plan or Plan()
        self.name = name
        self.keys = dict(keys or {})
        self.ready, self.fits, self.mixed, self.refused = ready, fits, mixed, dict(refused or {})
        self.inputs = inputs_of(module)
        only_tensors("trainer", params)
        held = {n: self.keys.get(n, n) for n in self.inputs if self.keys.get(n, n) in params}
        unknown = [k for k in params if k not in held.values()]
        if unknown:
            raise InputError(
                f"trainer: {unknown[0]!r} is no input of {name}; those are {', '.join(self.keys.get(n, n) for n in self.inputs)}"
            )
        self.batch = tuple(n for n in self.inputs if n not in held)
        if not self.batch:
            raise InputError(
                f"trainer: every input of {name} is among the parameters; leave out those that are rows of the data"
            )
        own = set(self.plan.buffers)
        self.values = {n: params[k].detach().clone(memory_format=torch.contiguous_format) for n, k in held.items()}
        self.order = {k: n for n, k in held.items()}
        self.params = {k: self.values[self.order[k]] for k in params if self.order[k] not in own}
        self.buffers = {k: self.values[self.order[k]] for k in params if self.order[k] in own}
        self.source = ""
        self.path = ""
        self.velocities = {n: torch.zeros_like(v) for n, v in self.values.items() if self.trains(n, v)}
        self.runner: Any = None
        self.several: Any = None
        self.made_for: Any = None

    def run(
        self,
        data: Sequence[Tensor],
        steps: int = 1000,
        lr: float | None = None,
        generator: Generator | None = None,
        watch: Any = None,
    ) -> Tensor:
        """Take steps and return their losses (steps,).

        Args:
            data: tensors whose rows the batch inputs are, in the forward's order.
            steps: how many.
            lr: the learning rate; the trainer's own by default.
            generator: of the rows: each step's are `torch.randint(0, len(X), (batch_size,), generator=generator)`.
            watch: told of every run of steps: how many, and the values that the plan keeps, a row for each.

        Whatever ends it, an error or an interruption, the parameters are those after the last step that was taken.

        Raises:
            InputError: another number of tensors than the forward has batch inputs, or of unequal lengths; dtypes that do not
                fit each other; places outside of what is read at them; `steps` is no whole number or below zero; a parameter was replaced by one of another shape.
        """
        tensors = tuple(data)
        if len(tensors) != len(self.batch):
            raise InputError(
                f"run: {self.name} takes rows of {len(self.batch)} tensors ({', '.join(self.batch)}) and was given {len(tensors)}"
            )
        only_tensors("run", dict(zip(self.batch, tensors, strict=True)))
        if any(len(t) != len(tensors[0]) for t in tensors) or not len(tensors[0]):
            raise InputError(
                f"run: the data have {', '.join(str(len(t)) for t in tensors)} rows; they must be as many, and not none"
            )
        steps = whole("run: steps", steps, 0)
        if not steps:
            return torch.empty(0, dtype=next(iter(self.params.values())).dtype)
        for name, t in zip(self.batch, tensors, strict=True):
            if name in self.refused:
                self.refused[name].check(t)
        rate = self.lr if lr is None else real("run: lr", lr)
        self.take_over()
        try:
            return self.taken(tensors, steps, rate, generator, watch)
        except RuntimeError as error:
            reason = "" if self.mixed is None else self.mixed(self.given(tensors))
            if reason:
                raise InputError(f"run: {reason} (torch: {error})") from error
            raise

    def taken(
        self, tensors: tuple[Tensor, ...], steps: int, rate: float, generator: Generator | None, watch: Any
    ) -> Tensor:
        """The losses of steps, by compiled ones first."""
        with torch.inference_mode(mode=False):
            self.prepare(tensors)
            first: list[Tensor] = []
            if self.several is not None and steps >= self.several.count:
                calls, steps = divmod(steps, self.several.count)
                first.append(self.several.run(tensors, calls, rate, generator, watch))
        if steps:
            with torch.inference_mode():
                first.append(self.runner(tensors, steps, rate, generator, watch))
        return torch.cat([t.clone() for t in first])

    def take_over(self) -> None:
        """What was put into `params` or `buffers` in place of their tensors is copied into these. Raises InputError."""
        for held in (self.params, self.buffers):
            for key, value in held.items():
                if key not in self.order:
                    raise InputError(f"run: {key!r} was put into the trainer's tensors, which has none of this name")
                own = self.values[self.order[key]]
                if value is own:
                    continue
                only_tensors("run", {key: value})
                if (value.shape, value.dtype) != (own.shape, own.dtype):
                    raise InputError(
                        f"run: {key} was replaced by {kind_of(value)}; the trainer's is {kind_of(own)}. Make another trainer for it"
                    )
                with torch.no_grad():
                    own.copy_(value)
                held[key] = own

    def trains(self, name: str, value: Tensor) -> bool:
        """Whether an input is moved by its gradient."""
        return (
            value.is_floating_point()
            and name not in self.plan.buffers
            and (self.plan.wanted is None or name in self.plan.wanted)
        )

    def prepare(self, data: Sequence[Tensor]) -> None:
        """The loop for rows of these shapes, made once. Parameters and velocities survive a change of shape."""
        kind = tuple((tuple(t.shape[1:]), t.dtype) for t in data)
        if kind == self.made_for:
            return
        if self.fits is not None:
            self.fits(self.given(data))
        module = self.ready(data) if self.ready is not None and not self.compile else None
        self.path = "the emitted loop"
        trainer: Any = module.trainer if module is not None else self.made(data)
        options = (self.velocities, self.momentum) if self.momentum else ()
        try:
            self.runner = trainer(self.values, *options)
        except RuntimeError as error:  # a view that its memory does not allow
            self.runner = self.single(error)(self.values, *options)
        self.made_for = kind

    def given(self, data: Sequence[Tensor]) -> list[Tensor]:
        """The forward's inputs, rows of the data as tensors without values."""
        rows = {
            n: torch.empty((self.batch_size, *t.shape[1:]), dtype=t.dtype, device="meta")
            for n, t in zip(self.batch, data, strict=True)
        }
        return [rows[n] if n in rows else self.values[n] for n in self.inputs]

    @few_collections()
    def made(self, data: Sequence[Tensor]) -> Any:
        """`trainer` of the loop that is emitted for these data, or one step at a time; the compiled steps if they are asked for."""
        from codegen.loop.make import make_loop  # here, as a loop that is there needs neither sympy nor templates
        from codegen.loop.stepwise import FAILURES
        from codegen.program import load

        plan = self.momentum_plan()
        rows = dict(zip(self.batch, rows_of(data), strict=True))
        try:
            loop = make_loop(self.module, rows, self.values, self.batch_size, plan, self.name, self.name)
        except FAILURES as error:
            return self.single(error)
        self.source = loop.source
        if self.compile:
            from codegen.loop.compiled import Compiled

            self.path = "compiled steps"
            self.several = Compiled(loop.layout, loop.trained, self.values, self.velocities, self.momentum, loop.source)
        return cast("Any", load(loop.source, f"{self.name}_loop")).trainer

    def single(self, error: Exception) -> Any:
        """`trainer` of single steps by the closed backward, for a forward of which no loop could be made."""
        from codegen.loop.stepwise import stepwise

        self.path = f"the closed backward, one step at a time, as no loop could be made of it ({error})"
        moving = [n for n, v in self.values.items() if self.trains(n, v)]
        return stepwise(self.module, self.inputs, self.batch, self.batch_size, self.momentum_plan(), moving)

    def workspace(self) -> int:
        """Bytes that the loop holds between runs besides parameters, buffers and velocities; 0 before the first."""
        own = {t.untyped_storage().data_ptr() for t in [*self.values.values(), *self.velocities.values()]}
        found: dict[int, int] = {}
        stack: list[Any] = [self.runner]
        while stack:
            x = stack.pop()
            if isinstance(x, (list, tuple)):
                stack.extend(cast("list[Any]", x))
            elif isinstance(x, FunctionType):
                stack.extend(c.cell_contents for c in x.__closure__ or ())
            elif isinstance(x, Tensor):
                memory = x.untyped_storage()
                found[memory.data_ptr()] = memory.nbytes()
        return sum(size for at, size in found.items() if at not in own)

    def momentum_plan(self) -> Plan:
        """The plan, with velocities if there is momentum, and for a compiler if there is one."""
        from dataclasses import replace

        return replace(self.plan, momentum=self.momentum != 0, compiled=self.compile)


def whole(name: str, value: Any, least: int) -> int:
    """A whole number that is at least so large. Raises InputError."""
    try:
        found = operator.index(value)
    except TypeError:
        found = least - 1
    if found < least:
        raise InputError(f"{name} is {value!r}; it is a whole number from {least}")
    return found


def real(name: str, value: Any) -> float:
    """A number. Raises InputError."""
    try:
        if not isinstance(value, str):
            return float(value)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise InputError(f"{name} is {value!r}; it is a number")


def only_tensors(what: str, values: Any) -> None:
    """Refuse values by name of which one is no tensor, and what has no names. Raises InputError."""
    if not isinstance(values, Mapping):
        raise InputError(f"{what}: a {type(values).__name__} was given; give a dict of tensors by the forward's names")
    for name, value in cast("Mapping[Any, Any]", values).items():
        if not isinstance(value, Tensor):
            raise InputError(f"{what}: {name} is a {type(value).__name__}; give a tensor, torch.as_tensor(...)")


def kind_of(t: Tensor) -> str:
    """Dtype and shape, to be read."""
    return f"{t.dtype} {tuple(t.shape)}".removeprefix("torch.")


def program_trainer(
    program: Program, params: Mapping[str, Tensor], batch_size: int, lr: float, momentum: float, compile: bool
) -> LoopTrainer:
    """See `Program.trainer`."""
    from codegen.fromstart import of_data
    from codegen.program import mixed_dtypes
    from codegen.reference import values_of

    graph = program.graph
    loss = graph[graph.outputs[0]]
    if program.mode != "closed":
        raise InputError(
            f"trainer: {graph.name} was generated with mode={program.mode!r}; the loop is made from mode='closed'"
        )
    if any(s != 1 for s in loss.shape):
        raise InputError(
            f"trainer: {graph.name} returns a tensor of shape {tuple(loss.shape)}; a loss to train on has one element"
        )
    if not params:
        raise InputError(
            f"trainer: no parameters were given; those of {graph.name} are among {', '.join(map(graph.key, graph.inputs))}"
        )
    outputs = 1 if graph.single else len(graph.outputs)
    wanted = None if program.wrt is None else tuple(n for n in graph.inputs if graph.key(n) in program.wrt)

    def renew(inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        values = values_of(graph, inputs)
        return {name: values[after] for name, after in graph.buffers.items()}

    buffers = tuple(graph.buffers)
    plan = Plan(outputs, buffers, renew if buffers else None, graph.key, wanted=wanted)
    only_tensors("trainer", params)
    given = {**held(program), **params}
    keys = {n: graph.key(n) for n in graph.inputs}

    def mixed(tensors: Sequence[Tensor]) -> str:
        return mixed_dtypes(graph, tensors)

    return LoopTrainer(
        program.module,
        given,
        batch_size,
        lr,
        momentum,
        compile,
        plan,
        graph.name,
        keys,
        None,
        program.tensors,
        mixed,
        of_data(graph),
    )


def held(program: Program) -> dict[str, Tensor]:
    """What a module's forward takes besides its arguments, as the module has it now."""
    if program.owner is None:
        return {}
    own = {**dict(program.owner.named_parameters()), **dict(program.owner.named_buffers())}
    return {program.graph.key(n): own[program.graph.key(n)] for n in program.graph.parameters}
