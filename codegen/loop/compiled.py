"""Several steps in one call of code that torch's compiler made ahead of time, kept on disk from one run to the next."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from codegen.loop.graph import Node, Sized, mapped, packet
from codegen.loop.own import OWN, spread, spread_rows
from engine.errors import SymgradError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Generator

    from codegen.loop.layout import Layout

CALLS = 500
"""About how many calls of torch are compiled together: more take longer to compile and gain little."""
MOST = 20
OPTIONS: dict[str, Any] = {"realize_reads_threshold": 0}
"""For the compiler: what is read more than once is computed once, as BatchNorm's reciprocal roots for all rows."""
Watch = "Callable[[int, dict[str, Tensor]], None]"


class CompileError(SymgradError):
    """The compiler refused the steps, or there is no compiler."""


class Steps(nn.Module):
    """Steps of a layout as a function of the state: (state, rows of each batch input, rate) -> (state, losses, kept values)."""

    def __init__(self, layout: Layout, trained: Sequence[str], momentum: float, count: int) -> None:
        super().__init__()
        self.layout, self.trained, self.momentum, self.count = layout, tuple(trained), momentum, count
        step = layout.step
        self.held = [n for n in step.inputs if n not in step.batch]
        self.moving = [n for n in self.trained if momentum]
        self.kept = [k for k in step.results if k.startswith("keep.")]

    def forward(self, now: list[Tensor], rows: list[Tensor], rate: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Take the steps."""
        step = self.layout.step
        names = [*self.held, *[f"{n} moves" for n in self.moving]]
        state = dict(zip(names, now, strict=True))
        losses: list[Tensor] = []
        kept: list[list[Tensor]] = [[] for _ in self.kept]
        for k in range(self.count):
            values = self.values(state, dict(zip(step.batch, [r[k] for r in rows], strict=True)))
            losses.append(values[step.results["loss"]].reshape(()))
            for found, key in zip(kept, self.kept, strict=True):
                found.append(values[step.results[key]])
            state = self.moved(state, values, rate)
        return [state[n] for n in names], torch.stack(losses), [torch.stack(x) for x in kept]

    def values(self, state: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> dict[Node, Any]:
        """Every value of a step."""
        found: dict[Node, Any] = {}

        def given(a: Any) -> Any:
            return found[a] if isinstance(a, Node) else a.full if isinstance(a, Sized) else a

        for name, n in self.layout.step.inputs.items():
            found[n] = rows[name] if name in rows else state[name]
        for n in self.layout.step.order:
            if n in found:
                continue
            args, named = mapped(n.args, given), {k: mapped(v, given) for k, v in n.kwargs.items()}
            if n.constant is not None:
                found[n] = n.constant
            elif n.write:
                found[n] = changed(n, args, named)
            elif n.op == "spread":
                rowwise = len(n.shape) == 2 and n.args[0][0].constant is not None
                found[n] = (
                    spread_rows(args[0][1], args[1], n.shape, n.dtype)
                    if rowwise
                    else spread(args[0], args[1], n.shape, n.dtype)
                )
            elif n.op in OWN:
                made = OWN[n.op](*args)
                found[n] = made.to(n.dtype) if n.op in ("onehot", "counts") else made
            else:
                f = packet(n.op)
                found[n] = (getattr(f, n.overload) if n.overload else f)(*args, **named)
        return found

    def moved(self, state: dict[str, Tensor], values: dict[Node, Any], rate: Tensor) -> dict[str, Tensor]:
        """The state after a step."""
        results = self.layout.step.results
        after = dict(state)
        for n in self.trained:
            gradient = values[results[f"grad.{n}"]].reshape(state[n].shape)
            if self.momentum:
                gradient = after[f"{n} moves"] = self.momentum * state[f"{n} moves"] + gradient
            after[n] = state[n] - rate * gradient
        averaged = {a.name: a for a in self.layout.averages}
        for key, r in results.items():
            name = key.removeprefix("buffer.")
            if key.startswith("buffer.") and name not in averaged:
                after[name] = values[r].reshape(state[name].shape)
        for a in averaged.values():
            share = a.share.full if isinstance(a.share, Sized) else a.share
            if a.value is None:
                after[a.name] = state[a.name] + share
            else:
                after[a.name] = a.keep * state[a.name] + share * values[a.value]
        return after


SCATTERS = {"select": "select_scatter", "slice": "slice_scatter", "diagonal": "diagonal_scatter"}
"""For a view of a part the call that puts another part in its place: a constant cannot be written while it is traced."""


def changed(n: Node, args: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
    """A tensor after a call that changes a part of it."""
    path = [(op, mapped(inside, lambda a: a.full if isinstance(a, Sized) else a)) for op, inside in n.path]
    views = [args[0]]
    for op, inside in path:
        views.append(packet(op)(views[-1], *inside))
    if all(op in SCATTERS for op, _ in path):
        out = packet(n.op)(views.pop(), *args[1:], **named)
        for op, inside in reversed(path):
            out = packet(SCATTERS[op])(views.pop(), out, *inside)
        return out
    out = view = args[0].clone()
    for op, inside in path:
        view = packet(op)(view, *inside)
    getattr(view, f"{n.op}_")(*args[1:], **named)
    return out


class Compiled:
    """Steps through the compiled call.

    Attributes:
        count: how many steps a call takes.
    """

    def __init__(
        self,
        layout: Layout,
        trained: Sequence[str],
        values: Mapping[str, Tensor],
        velocities: Mapping[str, Tensor],
        momentum: float,
        source: str,
    ) -> None:
        self.layout, self.values, self.velocities = layout, values, velocities
        calls = sum(not n.is_view and n.constant is None for n in layout.step.order)
        self.count = max(1, min(MOST, CALLS // max(1, calls)))
        self.steps = Steps(layout, trained, momentum, self.count)
        self.size = layout.step.inputs[layout.step.batch[0]].shape[0]
        self.call = self.load(source)

    def load(self, source: str) -> Any:
        """The compiled call: from disk if these steps were compiled before, by this module and torch and for this processor."""
        made_by = f"{Path(__file__).read_text()} {torch.__version__} {torch.backends.cpu.get_cpu_capability()}"
        key = f"{made_by} {self.count} {self.steps.momentum} {source}"
        path = folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.pt2"
        if not path.exists():
            started = time.perf_counter()
            self.compile(importlib.import_module("torch._inductor"), path)
            seconds = time.perf_counter() - started
            print(f"compiled {self.count} steps in {seconds:.1f} s, kept in {path}", file=sys.stderr)
        loader: Any = importlib.import_module("torch._C._aoti").AOTIModelPackageLoader
        return loader(
            str(path), "model", True, 1, -1
        ).run  # what torch._inductor does as well, after seconds of imports

    def compile(self, inductor: Any, path: Path) -> None:
        """Make the file. Raises CompileError."""
        rows = [
            torch.zeros((self.count, *self.layout.step.inputs[b].shape), dtype=self.layout.step.inputs[b].dtype)
            for b in self.layout.step.batch
        ]
        rate = torch.zeros((), dtype=self.layout.step.results["loss"].dtype)
        part = path.with_suffix(f".{os.getpid()}.pt2")
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the compiler's own imports
                exported = torch.export.export(self.steps, (self.state(), rows, rate))
                inductor.aoti_compile_and_package(exported, package_path=str(part), inductor_configs=OPTIONS)
            part.replace(path)
        except Exception as error:
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise CompileError(
                f"torch's compiler did not compile the steps ({reason[0]}); train without --compile (compile=False)"
            ) from error

    def state(self) -> list[Tensor]:
        """Copies of everything that a step changes, as the layout keeps it."""
        step = self.layout.step
        out: list[Tensor] = []
        for source, names, moving in (
            (self.values, self.steps.held, False),
            (self.velocities, self.steps.moving, True),
        ):
            for name in names:
                kept, n = step.kept.get(name), step.inputs[name]
                out.append(source[name].clone() if kept is None else kept.filled(n.shape, n.dtype, source, moving))
        return out

    def run(
        self, data: Sequence[Tensor], calls: int, lr: float, generator: Generator | None, watch: Any = None
    ) -> Tensor:
        """Take `calls * count` steps on the values, in place. Returns their losses; `watch` is told of every call's kept values."""
        now = self.state()
        rate = torch.tensor(lr, dtype=self.layout.step.results["loss"].dtype)
        losses: list[Tensor] = []
        together = max(1, self.layout.chunk // self.count)
        try:
            with torch.inference_mode():
                for first in range(0, calls, together):
                    several = min(together, calls - first)
                    rows = torch.randint(0, len(data[0]), (several * self.count * self.size,), generator=generator)
                    drawn = [
                        t.index_select(0, rows).view(several, self.count, self.size, *t.shape[1:]).unbind()
                        for t in data
                    ]
                    for picked in zip(*drawn, strict=True):
                        out = self.call([*now, *picked, rate])
                        now, found, kept = out[: len(now)], out[len(now)], out[len(now) + 1 :]
                        losses.append(found)
                        if watch is not None:
                            names = [k.removeprefix("keep.") for k in self.steps.kept]
                            watch(self.count, dict(zip(names, kept, strict=True)))
        finally:  # however the steps end
            self.give_back(now)
        return torch.cat(losses)

    def give_back(self, now: Sequence[Tensor]) -> None:
        """Copy the state to the values and velocities it came from."""
        targets = [*[(self.values, n) for n in self.steps.held], *[(self.velocities, n) for n in self.steps.moving]]
        for (source, name), value in zip(targets, now, strict=True):
            kept = self.layout.step.kept.get(name)
            for own, part in ({name: value} if kept is None else kept.taken(value)).items():
                source[own].copy_(part)


def folder() -> Path:
    """Where compiled steps are kept: `SYMGRAD_CACHE`, else the user's cache folder."""
    base = (
        os.environ.get("SYMGRAD_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "symgrad"
    )
    path = Path(base)
    path.mkdir(parents=True, exist_ok=True)
    return path
