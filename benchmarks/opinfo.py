"""PyTorch's own operator sample inputs through both modes in float64: pass, refused, wrong.

    python benchmarks/opinfo.py [OP...] [--mode steps|closed] [--limit N] [--seed S] [--seconds T] [--why]

The samples are those of `torch.testing._internal.common_methods_invocations.op_db` that torch differentiates. Each becomes a
forward of its tensors; the emitted program's results and gradients are held against autograd's, for a random cotangent.

    pass     equal to autograd, or nearer to the high-precision truth than it (`codegen.check` says which side is wrong)
    refused  a SymgradError: the op or the way it is called is outside of what is covered, and that was said
    wrong    anything else: other numbers, another exception, text that does not run
    slow     not derived within the time limit
    torch    torch itself does not differentiate the sample, so that there is nothing to compare with

Needs `pip install expecttest`, which torch's own test helpers import. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch.utils import _pytree as pytree

import codegen
from codegen.measure import difference
from codegen.reference import same_randomness
from engine.errors import SymgradError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

OUTCOMES = ("pass", "refused", "wrong", "slow", "torch")


class TooSlow(BaseException):
    """The time limit of a sample is over."""


@dataclass(frozen=True)
class Sample:
    """One sample: a forward of tensors, and those tensors."""

    forward: Callable[..., Any]
    tensors: list[Tensor]
    text: str


@dataclass
class Tally:
    """Outcomes of one op, and the reasons for those that are no pass."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


def forward_of(op: Any, leaves: list[Any], spec: Any, places: list[int]) -> Callable[..., Any]:
    """The op as a function of the tensors among its arguments."""

    def forward(*tensors: Any) -> Any:
        given = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        args, kwargs = pytree.tree_unflatten(given, spec)
        with mock.patch("torch.manual_seed"):  # some samples seed inside of the op, which is no part of a forward
            return op(*args, **kwargs)

    return forward


def samples(info: Any) -> Iterator[Sample]:
    """An op's sample inputs as forwards. Views of one storage become tensors of their own."""
    for s in info.sample_inputs("cpu", torch.float64, requires_grad=True):
        leaves, spec = pytree.tree_flatten(((s.input, *s.args), s.kwargs))
        places = [k for k, v in enumerate(leaves) if isinstance(v, torch.Tensor)]
        tensors = [leaves[k].detach().clone().requires_grad_(leaves[k].requires_grad) for k in places]
        shown = [
            f"{v.dtype}{tuple(v.shape)}".removeprefix("torch.") if isinstance(v, torch.Tensor) else v for v in leaves
        ]
        yield Sample(forward_of(info.op, leaves, spec, places), tensors, f"{shown} {list(s.kwargs)}")


def reference(s: Sample) -> tuple[list[Tensor], list[Tensor | None], list[Tensor | None]] | None:
    """autograd's results, the cotangents, and a gradient for every tensor that it differentiates; None if it has none."""
    try:
        with same_randomness():
            outputs = pytree.tree_leaves(s.forward(*s.tensors))
        generator = torch.Generator().manual_seed(1)
        seeds = [torch.randn(o.shape, generator=generator, dtype=o.dtype) if o.requires_grad else None for o in outputs]
        live = [(o, g) for o, g in zip(outputs, seeds, strict=True) if g is not None]
        asked = [t for t in s.tensors if t.requires_grad]
        if not live or not asked:
            return None
        found = torch.autograd.grad([o for o, _ in live], asked, [g for _, g in live], allow_unused=True)
    except (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError):
        return None
    given = iter(found)
    return [o.detach() for o in outputs], seeds, [next(given) if t.requires_grad else None for t in s.tensors]


def compared(program: codegen.Program, s: Sample, wanted: Any) -> str:
    """What is wrong with a program's results and gradients, "" if nothing is."""
    outputs, seeds, gradients = wanted
    inputs = [t.detach() for t in s.tensors]
    with same_randomness():
        out, saved = program.forward(*inputs)
    results = pytree.tree_leaves(out)
    if len(results) != len(outputs):
        return f"{len(results)} results, torch has {len(outputs)}"
    grads = program.backward(saved, seeds[0] if program.graph.single else seeds)
    pairs = [(f"result {k}", a, b) for k, (a, b) in enumerate(zip(results, outputs, strict=True))]
    for name, t, g in zip(program.graph.inputs, s.tensors, gradients, strict=True):
        if t.requires_grad:
            pairs.append(
                (f"gradient of {name}", grads[program.graph.key(name)], torch.zeros_like(t) if g is None else g)
            )
    for what, mine, theirs in pairs:
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            return f"{what} is {mine.dtype}{tuple(mine.shape)}, torch's {theirs.dtype}{tuple(theirs.shape)}"
        if not difference(mine, theirs).allclose:
            report = codegen.check(program, *inputs, grad_out=seeds)
            return "" if report.ok else f"{what}: {report.failures[0]}"
    return ""


def outcome(s: Sample, mode: str, seconds: float) -> tuple[str, str]:
    """One sample through one mode, and why it is no pass."""
    wanted = reference(s)
    if wanted is None:
        return "torch", ""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        program = codegen.generate(s.forward, *[t.detach() for t in s.tensors], mode=mode)
        failure = compared(program, s, wanted)
    except SymgradError as error:
        return "refused", str(error).split("\n")[0]
    except TooSlow:
        return "slow", f"more than {seconds:g} s"
    except Exception as error:  # noqa: BLE001 - whatever else is raised is what this looks for
        return "wrong", f"{type(error).__name__}: {error}".split("\n")[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ("wrong", failure) if failure else ("pass", "")


def tally(info: Any, mode: str, limit: int, seed: int, seconds: float) -> Tally:
    """All samples of an op through a mode."""
    torch.manual_seed(seed)
    total = Tally()
    for k, s in enumerate(samples(info)):
        if limit and k >= limit:
            break
        found, why = outcome(s, mode, seconds)
        total.counts[found] += 1
        if why:
            total.reasons[f"{found}: {why}" + (f"  {s.text}" if found == "wrong" else "")] += 1
    return total


def over(*_: Any) -> None:
    """The alarm's handler."""
    raise TooSlow


def line(name: str, counts: Counter[str]) -> str:
    """A row of the table."""
    return f"{name:<48}" + "".join(f"{counts[o] or '':>9}" for o in OUTCOMES)


def main() -> int:
    """Print a row per op and mode, and the totals."""
    parser = argparse.ArgumentParser(description="PyTorch's operator samples through both modes in float64.")
    parser.add_argument("ops", nargs="*", help="names of ops, all of them by default")
    parser.add_argument("--mode", choices=("steps", "closed", "both"), default="both")
    parser.add_argument("--limit", type=int, default=0, help="samples per op, 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="time limit of a sample")
    parser.add_argument("--why", action="store_true", help="say why samples were refused")
    given = parser.parse_args()
    from torch.testing._internal.common_methods_invocations import op_db

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, over)
    modes = ("steps", "closed") if given.mode == "both" else (given.mode,)
    infos = [i for i in op_db if torch.float64 in i.dtypes and i.supports_autograd]
    if given.ops:
        infos = [i for i in infos if i.name in given.ops or i.name.removeprefix("nn.functional.") in given.ops]
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    fully: Counter[str] = Counter()
    begin = time.perf_counter()
    print(f"{'op':<48}" + "".join(f"{o:>9}" for o in OUTCOMES))
    for info in infos:
        for mode in modes:
            try:
                found = tally(info, mode, given.limit, given.seed, given.seconds)
            except (RuntimeError, ImportError, AssertionError) as error:
                print(f"{info.name:<48} torch makes no samples here: {type(error).__name__}")
                continue
            totals[mode].update(found.counts)
            fully[mode] += found.counts["pass"] > 0 and not found.counts["refused"] + found.counts["slow"]
            title = info.name + (f".{info.variant_test_name}" if info.variant_test_name else "")
            print(line(f"{title} ({mode})", found.counts), flush=True)
            for reason, count in found.reasons.most_common():
                if given.why or not reason.startswith("refused"):
                    print(f"    {count} x {reason[:220]}")
    for mode in modes:
        print(line(f"total ({mode}), {fully[mode]} ops without a refusal", totals[mode]))
    print(f"{len(infos)} ops, {time.perf_counter() - begin:.0f} s")
    return int(any(t["wrong"] for t in totals.values()))


if __name__ == "__main__":
    sys.exit(main())
