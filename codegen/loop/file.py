# pyright: basic
"""The file `loop.py`: its text around the statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codegen.loop.emit import OPERATORS, Writer
from codegen.loop.kept import Unpacked, described

if TYPE_CHECKING:
    from collections.abc import Sequence

    from codegen.loop.graph import Step
    from codegen.loop.layout import Layout


WIDTH = 108
"""Columns behind the indentation from which on a line is broken."""


def loop_source(
    layout: Layout, trained: tuple[str, ...], target: str, name: str, used: Sequence[str], momentum: bool = False
) -> str:
    """The emitted file. `used` are the identities that were used, as text."""
    from codegen.emit import render

    writer = Writer(layout, trained, momentum)
    text = writer.write()
    step = layout.step
    others = [n for n in step.inputs if n not in step.batch]
    batch = step.inputs[step.batch[0]].shape[0]
    dtype = step.results["loss"].dtype
    names = [n for n, _ in text.rows]
    moving = trained if momentum else ()
    copies = copies_of(step, moving)
    kept = [k.removeprefix("keep.") for k in step.results if k.startswith("keep.")]
    ends = [f"{r}_of" for r in text.results]
    late = writer.lifted
    lifted = None if late is None else [f"{a}_of = {rows}[:count]" for a, rows in text.late_args] + late
    given = given_inputs(step)
    return render(
        "loop.py.j2",
        target=target,
        name=name,
        kind="gradient descent with momentum" if momentum else "gradient descent",
        batch=batch,
        sizes=[f'"{k}": ("{dtype}", {", ".join(map(str, shape))}),' for k, (shape, dtype) in given.items()],
        identities=chosen(used, step),
        operators=[(op, OPERATORS[op]) for op in text.operators],
        momentum=momentum,
        unpack=[line for n in others for line in unpacked(n, n, "params", step)],
        states=[line for n in moving for line in unpacked(n, f"{n}_velocity", "velocities", step)],
        begin=[line for u in copies for line in u.begin()],
        finish=[line for u in copies for line in u.finish()],
        setup=list(filter(None, text.setup)),
        lifted=lifted,
        late_args=[a for a, _ in text.late_args],
        late=text.late,
        results=", ".join(text.results) + ("," if len(text.results) == 1 else ""),
        loss_dtype=dtype,
        chunk=layout.chunk,
        draw=text.draw,
        loop=loop_lines(names, [rows for _, rows in text.rows]),
        body=text.body,
        ends=at_end_lines(ends, [f"{rows}[:count]" for _, rows in text.late_args]),
        ends_loss=ends[0] if not step.results["loss"].shape else f"{ends[0]}.flatten()",
        kept="{" + ", ".join(f'"{k}": {e}' for k, e in zip(kept, ends[1:], strict=True)) + "}",
    )


def loop_lines(names: list[str], rows: list[str]) -> list[str]:
    """The head of the loop over the steps of a chunk."""
    if not names:
        return ["for _ in range(count):"]
    into, given = ["_", *names], ["range(count)", *rows]
    line = f"for {', '.join(into)} in zip({', '.join(given)}):"
    return [line] if len(line) <= WIDTH else ["for (", *block(into), ") in zip(", *block(given), "):"]


def at_end_lines(ends: list[str], rows: list[str]) -> list[str]:
    """The call for what is computed at the end of a chunk."""
    into = ", ".join(ends) + ("," if len(ends) == 1 else "")
    line = f"{into} = torch.vmap(at_end)({', '.join(rows)})"
    if len(line) <= WIDTH:
        return [line]
    head = [f"{into} = torch.vmap(at_end)("]
    return [*(head if len(head[0]) <= WIDTH else ["(", *block(ends), ") = torch.vmap(at_end)("]), *block(rows), ")"]


def block(names: Sequence[str]) -> list[str]:
    """Names in lines of their own, as many in each as fit."""
    lines: list[str] = []
    for n in names:
        if lines and len(lines[-1]) + len(n) + 2 <= WIDTH:
            lines[-1] += f" {n},"
        else:
            lines.append(f"    {n},")
    return lines


def chosen(used: Sequence[str], step: Step) -> list[str]:
    """What the docstring says about how things are computed."""
    lines = (
        ["", "Kernels that were chosen, each equal to what was derived:", *[f"    {u}" for u in used]] if used else []
    )
    if step.kept:
        lines += ["", "Kept in another form while steps are taken, as calls are faster or fewer then:"]
        lines += [f"    {line}" for k, kept in step.kept.items() for line in described(kept, k, step.inputs[k].shape)]
    return lines


def given_inputs(step: Step) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of every input that was given."""
    out: dict[str, tuple[tuple[int, ...], Any]] = {}
    for k, n in step.inputs.items():
        kept = step.kept.get(k)
        out |= (
            {step.called.get(k, k): (n.shape, n.dtype)}
            if kept is None
            else {p.name: (p.shape, n.dtype) for p in kept.parts}
        )
    return out


def unpacked(name: str, variable: str, source: str, step: Step) -> list[str]:
    """A parameter (or its velocity) as a variable: the tensor itself, or one that it is copied into."""
    if name not in step.kept:
        return [f'{variable} = {source}["{name}"]']
    n = step.inputs[name]
    return Unpacked(step.kept[name], variable, source, n.shape, n.dtype).setup()


def copies_of(step: Step, moving: Sequence[str]) -> list[Unpacked]:
    """What is copied into other tensors before the steps and back after them."""
    made = [(k, "params", k) for k in step.kept] + [
        (k, "velocities", f"{k}_velocity") for k in moving if k in step.kept
    ]
    return [Unpacked(step.kept[k], v, s, step.inputs[k].shape, step.inputs[k].dtype) for k, s, v in made]
