"""The text around an emitted forward and backward: `Function`, `function`, `Module`, and a custom operator."""

from __future__ import annotations

import ast
import keyword
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from codegen.emit import render, sequence
from engine.spelling import listed, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from codegen.modulestate import ModuleState
    from engine.graph import Graph


@dataclass(frozen=True)
class Emission:
    """An emitted forward and backward, as what is put around them needs to know them.

    Attributes:
        graph: the traced forward.
        wanted: inputs whose gradients the backward returns.
        saved: names in the tuple that the backward takes, in order; `pack` is what makes it (nothing for a tuple).
        zeros: keys of gradients that are zero whatever the inputs are.
        drawn: random tensors that the forward takes back as `drawn`, in order; all of them are saved.
        renewed: inputs that are buffers the forward changes, whose new values it puts into `buffers`.
        lines: the statements of the forward.
        written: statements that compute the results by the forward's own calls, where second derivatives need these.
    """

    graph: Graph
    wanted: tuple[str, ...]
    saved: tuple[str, ...]
    pack: str = ""
    zeros: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    @property
    def results(self) -> tuple[str, ...]:
        """The forward's results, each once."""
        return tuple(dict.fromkeys(self.graph.outputs))

    @property
    def made(self) -> tuple[str, ...]:
        """Saved tensors that are neither inputs nor results."""
        return tuple(n for n in self.saved if n not in self.graph.inputs and n not in self.graph.outputs)

    def is_float(self, name: str) -> bool:
        """Whether a node is floating-point."""
        return self.graph[name].dtype.is_floating_point


def returned(graph: Graph) -> str:
    """What the emitted forward returns besides `saved`."""
    inside = ", ".join(graph.outputs)
    return inside if graph.single else f"({inside}{',' * (len(graph.outputs) == 1)})"


HANDED_BACK = frozenset((
    "alias", "atleast_1d", "atleast_2d", "atleast_3d", "bfloat16", "conj", "contiguous", "cpu", "cuda", "diff", "double", "flatten", "float",
    "half", "positive", "real", "resolve_conj", "resolve_neg", "to", "type", "type_as",
))  # fmt: skip
"""Methods and functions that may return the tensor itself."""
VIEWS = HANDED_BACK | frozenset((
    "T", "chunk", "detach", "diagonal", "expand", "expand_as", "mT", "movedim", "narrow", "permute", "ravel", "reshape",
    "select", "split", "squeeze", "swapaxes", "t", "transpose", "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as",
))  # fmt: skip
"""Methods, functions and attributes that may return a tensor in the same memory."""


def origins(graph: Graph, lines: Iterable[str], methods: frozenset[str]) -> dict[str, str]:
    """By name, the first tensor that a statement of an emitted forward may bind it to as it is, or as one of `methods` gives it."""
    found = {n: n for n in graph.inputs}

    def origin(e: ast.expr) -> str:
        if isinstance(e, ast.Name):
            return found.get(e.id, "")
        if isinstance(e, ast.Subscript):
            return origin(e.value) if methods is VIEWS else ""
        if isinstance(e, ast.Attribute):
            return origin(e.value) if e.attr in methods else ""
        if not isinstance(e, ast.Call) or not isinstance(e.func, ast.Attribute):
            return ""
        # a dropout outside of training is nothing at all
        of_function = ast.unparse(e.func).startswith("torch.") and (e.func.attr in methods or "dropout" in e.func.attr)
        found_in = [origin(a) for a in (e.func, *(e.args if of_function else ()))]
        return next((n for n in found_in if n), "")

    for statement in ast.parse("\n".join(lines)).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            found[name] = origin(statement.value) or name
    return found


def writes(lines: Iterable[str]) -> bool:
    """Whether statements of an emitted forward write into a tensor."""
    for statement in ast.parse("\n".join(lines)).body:
        if isinstance(statement, (ast.Assign, ast.AugAssign)):
            into = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            if isinstance(into, ast.Subscript):
                return True
        calls = (n.func for n in ast.walk(statement) if isinstance(n, ast.Call))
        if any(isinstance(f, ast.Attribute) and f.attr.endswith("_") and not f.attr.endswith("__") for f in calls):
            return True
    return False


def function_text(e: Emission) -> str:
    """`Function`, `ForwardMode`, `apply` and `function`."""
    graph, inputs, results = e.graph, e.graph.inputs, e.results
    position = {n: k for k, n in enumerate((*results, *e.made))}
    kept = [n for n in (*results, *e.made) if n in e.saved]
    marked = [f"output[{position[n]}]" for n in results if not e.is_float(n) or not graph[n].differentiable]
    if e.made or e.renewed:
        marked.append(f"*output[{len(results)}:]")
    firsts = {n: graph.outputs.index(n) for n in results}
    seeds = [f"grad_out[{position[n]}]" if k == firsts[n] else "None" for k, n in enumerate(graph.outputs)]
    floats = [k for k, n in enumerate(results) if e.is_float(n)]
    names = iter(f"moved_{k}" for k in range(len(floats)))
    moves = [next(names) if k in floats else "None" for k in range(len(results))]
    slots = [f"grads[{quoted(graph.key(n))}]" if n in e.wanted else "None" for n in inputs]
    extra = ["*buffers.values()"] if e.renewed else []
    # What an autograd Function returns is no input, and no view of one where that is to have a derivative; nor is it returned
    # twice, as a result and as a tensor that is saved.
    seen, same = (origins(graph, e.lines, methods) for methods in (VIEWS, HANDED_BACK))
    others = {same.get(n, n) for n in e.made}
    own: list[str] = []
    for n in results:
        own.append(f"{n}.clone()" if seen.get(n, n) in inputs or same.get(n, n) in others else n)
        others.add(same.get(n, n))
    own += [f"{n}.view_as({n})" if same.get(n, n) in inputs else n for n in e.made]
    return render(
        "function.py.j2",
        name=graph.name,
        inputs=inputs,
        outputs=graph.outputs,
        outs=len(results),
        single=graph.single,
        returns=returned(graph),
        renewed=e.renewed,
        pack=e.pack,
        made=e.made,
        call="computed" if writes(e.lines) else "forward",
        unpack_saved=sequence(list(e.saved), " = saved", 8),
        results=listed([*own, *extra]) or "()",
        kept="".join(f", {t}" for t in taken("output", [position[n] for n in kept])),
        marked=", ".join(marked),
        unpack_kept=sequence([*inputs, *kept], " = ctx.saved_tensors", 8),
        pack_saved=packed(e),
        drawn=f", drawn=({', '.join(e.drawn)},)" if e.drawn else "",
        drawn_saved="".join(f"ctx.saved_tensors[{len(inputs) + kept.index(n)}], " for n in e.drawn).strip(),
        written=[*e.written, f"return ({listed(results[k] for k in floats)})"] if e.written else [],
        inputs_tuple=listed(inputs),
        moved_at=f"({listed(str(k) for k, n in enumerate(inputs) if n in e.wanted)})",
        grads_of_floats=f"grad_out[:{len(floats)}]"
        if floats == list(range(len(floats)))
        else f"[{', '.join(f'grad_out[{k}]' for k in floats)}]",
        grad_out=seeds[0] if graph.single else f"[{', '.join(seeds)}]",
        zeros=[quoted(k) for k in e.zeros],
        slots=listed(slots) or "()",
        floats="(out,)"
        if graph.single
        else "("
        + ", ".join(f"out[{graph.outputs.index(n)}]" for n in results if e.is_float(n))
        + ("," if len(floats) == 1 else "")
        + ")",
        moves=", ".join(m for m in moves if m != "None") + ("," if len(floats) == 1 else ""),
        tangents_out=", ".join([*moves, *nothings(len(e.made) + len(e.renewed))])
        + ("," if len(moves) + len(e.made) + len(e.renewed) == 1 else ""),
        float_at=next(k for k, n in enumerate(inputs) if e.is_float(n)),
        refused=[
            (quoted(f"{graph.name} was derived without the gradient of {graph.key(n)}: derive it with that in wrt"), k)
            for k, n in enumerate(inputs)
            if graph[n].differentiable and n not in e.wanted
        ],
        unpack_results=", ".join(results) + (", *_" if e.made or e.renewed else "," if len(results) == 1 else ""),
    )


def taken(name: str, places: list[int]) -> list[str]:
    """What reads a sequence at increasing places: `a[1]`, and `*a[1:5]` for more than two in a row."""
    out: list[str] = []
    while places:
        count = next((k for k in range(1, len(places)) if places[k] != places[0] + k), len(places))
        first, last = places[0], places[0] + count
        out += [f"*{name}[{first}:{last}]"] if count > 2 else [f"{name}[{k}]" for k in range(first, last)]
        places = places[count:]
    return out


def nothings(count: int) -> list[str]:
    """So many times None, spelled out where they are few."""
    return ["None"] * count if count <= 4 else [f"*[None] * {count}"]


def packed(e: Emission) -> str:
    """`saved = (...)`."""
    if e.pack:
        return f"saved = {e.pack}({', '.join(e.saved)})"
    return f"saved = ({listed(e.saved)})"


def module_text(e: Emission, state: ModuleState | None) -> str:
    """`Module`, and what it is built with."""
    graph = e.graph
    if state is None:
        names = "(" + ", ".join(quoted(n) for n in graph.inputs) + ("," if len(graph.inputs) == 1 else "") + ")"
        held = {n: f"{n}_" for n in graph.inputs if hasattr(nn.Module, n) or n == "training"}
        return render("module.py.j2", state=None, name=graph.name, names=names, held=held, renewed=())
    own = [n for n in graph.inputs if n not in graph.parameters]
    renewed = [chain(graph.key(n)) for n in e.renewed]
    # A buffer that the call changes is copied first: what is saved for the backward stays as it is.
    arguments = [n if n in own else chain(graph.key(n)) + (".clone()" if n in e.renewed else "") for n in graph.inputs]
    rest = ", *renewed" if e.renewed else ", *_" if e.made else "," if len(e.results) == 1 else ""
    mode, other = ("training", "eval()") if state.training else ("evaluation", "train()")
    call = "train()" if state.training else "eval()"
    return render(
        "module.py.j2",
        state=state,
        name=graph.name,
        single=graph.single,
        outputs=graph.outputs,
        own=own,
        parameters=names_text(state.parameters),
        frozen=names_text(state.frozen),
        buffers=names_text(state.buffers),
        loose=[quoted(n) for n in state.loose],
        shared=[(quoted(a), chain(b)) for a, b in state.shared],
        fixed=str(state.training) if state.fixed else "",
        refusal=quoted(
            f"this is {graph.name} in {mode} mode: call .{call}, or derive the other mode from the model's .{other}"
        ),
        call=sequence(arguments, ")", 8, f"{', '.join(e.results)}{rest} = apply("),
        renewed=renewed,
        renewal=[f"renew(({', '.join(renewed)}{',' * (len(renewed) == 1)}), renewed[-{len(renewed)}:])"],
    )


def names_text(names: tuple[str, ...]) -> str:
    """A tuple of strings as text; nothing for none."""
    return "(" + ", ".join(quoted(n) for n in names) + ("," if len(names) == 1 else "") + ")" if names else ""


def chain(name: str) -> str:
    """`self.a.b` for the name a.b of a parameter; what is no identifier is asked for with getattr."""
    text = "self"
    for part in name.split("."):
        plain = part.isidentifier() and not keyword.iskeyword(part)
        text = f"{text}.{part}" if plain else f"getattr({text}, {quoted(part)})"
    return text


def emission_options(e: Emission) -> dict[str, Any]:
    """What the forward's signature and docstring say of random tensors and buffers."""
    extra = [*(["drawn=None"] if e.drawn else []), *(["buffers=None"] if e.renewed else [])]
    text = ""
    if e.drawn:
        text += f" `drawn` is used in place of {', '.join(e.drawn)}, which it draws at random otherwise."
    if e.renewed:
        text += " A dict `buffers` receives what the buffers become."
    return {"extra": ", *, " + ", ".join(extra) if extra else "", "extra_text": text}
