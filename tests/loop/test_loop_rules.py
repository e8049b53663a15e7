"""The table of kernels: each entry is used only where it is equal to what was derived; a wrong one is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

import codegen
from codegen.loop.cost import flops
from codegen.loop.graph import Step, call, constant
from codegen.loop.kernels import PLAIN, RULES
from codegen.loop.make import rows_of
from codegen.loop.record import recorded
from codegen.loop.rules import Match, Rule, apply
from codegen.loop.tidy import tidied
from tests.loop.conftest import NAMES, cases
from tests.loop.test_loop_trainer import program_of


def step_of(name: str, rows: int = 16, sized: dict[str, Tensor] | None = None) -> Step:
    _, params, data = cases()[name]
    params = sized or params
    module = program_of(name).module
    names = module.forward.__code__.co_varnames[: module.forward.__code__.co_argcount]
    batch = {
        k: (r.shape, r.dtype, r.bound)
        for k, r in zip([n for n in names if n not in params], rows_of(data), strict=True)
    }
    step = recorded(module, names, batch, params, rows, 1, str, None, ())
    tidied(step)
    return step


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
def test_every_entry_keeps_every_result(rule: Rule, name: str) -> None:
    step = step_of(name)
    apply(step, RULES[: RULES.index(rule)])
    before = {k: n.value for k, n in step.results.items()}
    told = apply(step, (Rule(rule.name, rule.text, rule.find, always=True),))
    assert not told.refused
    for k, n in step.results.items():
        assert torch.allclose(n.value.reshape(-1), before[k].reshape(-1), rtol=1e-9, atol=1e-12)


def test_a_wrong_identity_is_refused() -> None:
    def wrong(step: Step) -> Iterator[Match]:
        for n in step.order:
            if n.op == "tanh":
                new = call("sigmoid", n.args[0], shape=n.shape, dtype=n.dtype)
                yield Match([new], [(n, new)])

    step = step_of("mlp")
    told = apply(step, (Rule("wrong", "tanh(z) = sigmoid(z)", wrong, always=True),))
    assert told.refused == ["wrong"]
    assert any(n.op == "tanh" for n in step.order)


def test_what_is_found_in_the_notebooks_mlp() -> None:
    used = apply(step_of("mlp", 32), RULES).used
    assert {"gather", "scatter", "addmm", "batch norm", "batch norm backward"} <= set(used)


def test_the_slope_of_tanh_is_found_again_where_it_is_written_out() -> None:
    """The program has the kernel itself; a plain loop has its formula, in which the rule finds the kernel."""
    step = step_of("mlp", 32)
    assert any(n.op == "tanh_backward" for n in step.order)
    apply(step, PLAIN)
    assert not any(n.op == "tanh_backward" for n in step.order)
    assert {"elementwise backward", "addmm", "batch norm", "batch norm backward"} <= set(apply(step, RULES).used)
    assert any(n.op == "tanh_backward" for n in step.order)


@pytest.mark.parametrize(("rows", "used"), [(4096, True), (8, False)])
def test_a_table_is_looked_up_where_the_batch_is_large(rows: int, used: bool) -> None:
    sizes = {"c": (27, 32), "w": (96, 256), "g": (256,), "b": (256,), "v": (256, 7)}
    params = {name: torch.randn(size, generator=torch.Generator().manual_seed(0)) for name, size in sizes.items()}
    assert ("table" in apply(step_of("deep", rows, params), RULES).used) is used


def test_a_product_costs_as_much_beside_what_it_is_added_to() -> None:
    c, a, b = (constant(torch.ones(size, dtype=torch.float64)) for size in ((32, 48), (32, 2), (2, 48)))
    alone = call("mm", a, b, shape=(32, 48), dtype=torch.float32)
    added = call("addmm", c, a, b, shape=(32, 48), dtype=torch.float32)
    assert flops(added) == flops(alone) == 2 * 32 * 2 * 48


def test_what_two_heads_pass_back_is_one_product_added_to_another() -> None:
    def two_heads(x: Tensor, y: Tensor, w: Tensor, u: Tensor, v: Tensor) -> Tensor:
        h = (x @ w).relu()
        return ((y - h @ u) / (h @ v).exp()).square().mean() + (h @ v).mean()

    g = Generator().manual_seed(0)
    x, y, w, u, v = (torch.randn(size, generator=g) / 4 for size in ((90, 9), (90, 2), (9, 48), (48, 2), (48, 2)))
    program = codegen.generate(two_heads, x[:32], y[:32], w, u, v)
    trainer = program.trainer({"w": w, "u": u, "v": v}, batch_size=32)
    trainer.run((x, y), steps=1)
    assert "torch.addmm(dh" in trainer.source
    assert "dh.add_(" not in trainer.source


def test_no_view_is_made_in_a_step_of_what_a_call_made_where_the_product_can_be_turned() -> None:
    """A B = (BT AT)T: the gradient of BatchNorm is new memory in every step, what it is multiplied with is not."""
    source = (Path(__file__).parent.parent.parent / "generated" / "mlp" / "loop.py").read_text()
    steps = source[source.index("while done < steps") : source.index("_of = ")]
    assert "torch.mm(dhpreact, w1_T, out=demb)" in steps
    assert ".t()" not in steps
