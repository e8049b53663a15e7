"""`codegen.check`: it passes what is right, refuses every planted mutant, and says which side is wrong."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codegen import check, derive, generate
from codegen.derive import Contribution
from codegen.program import Program, load
from codegen.steps import StepsWriter
from engine import trace
from engine.errors import InputError
from examples import batchnorm_eps, mlp

SEVENTEEN = [
    "nlls",
    "probs",
    "count",
    "exp_l",
    "logits",
    "h",
    "hpreact_bn",
    "bnmeani",
    "bnstdi",
    "hpreact",
    "emb",
    "C",
    "w1",
    "w2",
    "b2",
    "bnw",
    "bnb",
]


def mlp_inputs(n: int = 32, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    made = mlp.example_inputs(torch.Generator().manual_seed(0))
    rows = torch.arange(n) % 32
    made["x"], made["y"] = made["x"][rows], made["y"][rows]
    return [t.to(dtype) if t.is_floating_point() else t for t in made.values()]


@pytest.fixture(scope="module")
def program() -> Program:
    return generate(mlp.forward, *mlp_inputs(), mode="steps")


def small(x: Tensor, w: Tensor, i: Tensor) -> Tensor:
    h = (x @ w).tanh()
    p = h.exp() / h.exp().sum(1, keepdim=True)
    loss = -p[torch.arange(i.shape[0]), i].log().mean()
    return loss


def small_inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(3)
    return (
        torch.randn(6, 4, generator=g, dtype=dtype),
        torch.randn(4, 5, generator=g, dtype=dtype),
        torch.randint(5, (6,), generator=g),
    )


def corrupted(program: Program, old: str, new: str) -> Program:
    """The same program with the first statement of its backward that holds `old` changed."""
    lines = program.source.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("def backward"))
    found = [k for k, line in enumerate(lines) if k > start and old in line and not line.strip().startswith("#")]
    assert found, f"{old} is not in the emitted backward:\n{program.source}"
    lines[found[0]] = lines[found[0]].replace(old, new)
    program.module = load("\n".join(lines), program.graph.name)
    return program


# -- what is right ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("n", [32, 1, 7])
def test_the_seventeen_tensors_of_the_notebook(program: Program, n: int, dtype: torch.dtype) -> None:
    report = check(program, *mlp_inputs(n, dtype), truth=False)
    assert report.ok, report.failures
    names = [r.name for r in report.rows]
    assert {*SEVENTEEN} <= {*names}
    assert len(names) == len({*names})
    if n > 1:
        assert all(report[name].allclose for name in SEVENTEEN)


def test_a_row_per_node_with_both_errors(program: Program) -> None:
    report = check(program, *mlp_inputs(8))
    assert report.dtype == "float32"
    assert report.mode == "steps"
    assert [r.name for r in report.rows] == [program.graph.key(n) for n in program.derivation.nodes]
    for row in report.rows:
        assert row.error is not None
        assert row.error < 1e-5
        assert row.autograd_error is not None
        assert row.autograd_error < 1e-5
    assert re.fullmatch(r"\d+ of 28", report.exact_count)
    assert report.exact_count.startswith(str(sum(r.exact for r in report.rows)))
    assert {"loss", "emb", "h", "probs"} <= {r.name for r in report.values}
    assert "28 exact, ok" in repr(report)


def test_fifty_digits_agree_with_longdoubles() -> None:
    inputs = small_inputs()
    program = generate(small, *inputs, mode="steps")
    fine, coarse = check(program, *inputs, digits=50), check(program, *inputs)
    assert fine.ok
    for a, b in zip(fine.rows, coarse.rows, strict=True):
        assert a.error == pytest.approx(b.error, abs=1e-18)
        assert a.autograd_error == pytest.approx(b.autograd_error, abs=1e-18)


def test_several_results_and_a_given_cotangent() -> None:
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.tanh()
        return y, y.sum()

    x = torch.randn(3, 2, dtype=torch.float64)
    program = generate(forward, x, mode="steps")
    assert check(program, x).ok
    assert check(program, x, grad_out=[torch.ones(3, 2, dtype=torch.float64), None]).ok
    with pytest.raises(InputError, match="1 cotangents were given for 2 outputs"):
        check(program, x, grad_out=torch.ones(3, 2))


def test_a_bias_in_front_of_a_batchnorm_is_rounding_on_both_sides() -> None:
    def forward(x: Tensor, bias: Tensor) -> Tensor:
        z = x + bias
        diff = z - z.mean(0, keepdim=True)
        return (diff / diff.square().mean(0, keepdim=True).sqrt()).tanh()

    for dtype in (torch.float32, torch.float64):
        x, bias = torch.randn(16, 3, dtype=dtype), torch.randn(3, dtype=dtype)
        report = check(generate(forward, x, bias, mode="steps"), x, bias)
        assert report.ok, report.failures


RANDOM: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.Sequential(nn.Dropout(0.5), nn.Tanh()),
    "dropout": lambda x: nn.functional.dropout(x, 0.5).square(),
    "uniform": lambda x: x * torch.rand(x.shape[0], 1),
    "normal": lambda x: (x + torch.randn_like(x) + torch.randn(5)).tanh(),
    "shuffled": lambda x: x * x[torch.randperm(x.shape[0])],
    "around": lambda x: x * torch.normal(0.5, 2.0, (5,)) + torch.normal(x, 0.5),
    "picked": lambda x: x.gather(1, torch.multinomial(x.softmax(1), 2)),
    "mask": lambda x: x.square() * (torch.rand(8, 5) > 0.5),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_are_the_same_on_all_sides(name: str, dtype: torch.dtype) -> None:
    x = torch.randn(8, 5, dtype=dtype)
    for mode in ("steps", "closed"):
        report = check(generate(RANDOM[name], x, mode=mode), x)
        assert report.ok, report.failures


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["around a number", "around a tensor", "as wide as a tensor", "both", "filled"])
def test_numbers_around_a_mean_are_torchs(name: str, dtype: torch.dtype) -> None:
    forward: Callable[[Tensor], Tensor] = {
        "around a number": lambda x: x * torch.normal(0.3, 1.7, (40, 5)),
        "around a tensor": lambda x: x * torch.normal(x, 0.3),
        "as wide as a tensor": lambda x: x * torch.normal(0.3, x.abs()),
        "both": lambda x: x * torch.normal(x, x.abs()),
        "filled": lambda x: x * torch.empty(5).normal_(0.3, 1.7),
    }[name]
    x = torch.randn(40, 5, dtype=dtype)
    program = generate(forward, x, mode="closed")
    torch.manual_seed(1)
    expected = forward(x)
    torch.manual_seed(1)
    found = program.function(x)  # which adds a product in one call, and so rounds once less
    tolerance = 0.0 if name in ("around a number", "filled") else 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert "drawn[1]" not in program.source  # what is filled is not kept beside what fills it


def test_a_module_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.randn(6, 4)
    report = check(generate(model, x, mode="steps"), x)
    assert report.ok, report.failures
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# -- what is wrong --------------------------------------------------------------------------------------------------------

SOURCE_MUTANTS = [
    ("sign", small, "dp_exp_1 = dp", "dp_exp_1 = -dp"),
    ("factor", small, "tanh_backward(dh, h)", "tanh_backward(1.00001 * dh, h)"),
    ("wrong tanh", small, "torch.ops.aten.tanh_backward(dh, h)", "dh * (1 - h) ** 2"),
    ("transposed", small, "x.T @", "x.flip(0).T @"),
    ("dropped term", small, " + dp_exp * p_exp", ""),
    ("overwritten scatter", small, "accumulate=True", "accumulate=False"),
    ("cotangent forgotten", small, "if grad_out is None else grad_out", "if True else grad_out"),
]


@pytest.mark.parametrize(("what", "forward", "old", "new"), SOURCE_MUTANTS, ids=[m[0] for m in SOURCE_MUTANTS])
def test_a_mutant_in_the_emitted_text_fails(what: str, forward: Callable[..., Any], old: str, new: str) -> None:
    inputs = small_inputs()
    program = generate(forward, *inputs, mode="steps")
    if what == "overwritten scatter":
        inputs = (inputs[0], inputs[1], inputs[2])

        def gather(table: Tensor, rows: Tensor) -> Tensor:
            return table[rows].sin()

        inputs = (inputs[0], torch.tensor([0, 0, 1]))
        program = generate(gather, *inputs, mode="steps")
    assert check(program, *inputs).ok
    report = check(corrupted(program, old, new), *inputs)
    assert not report.ok
    assert report.failures


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_every_cotangent_of_the_mlp_is_watched(program: Program, dtype: torch.dtype) -> None:
    """Each statement in turn is off by a thousandth; its row, and the verdict, must say so."""
    inputs = mlp_inputs(8, dtype)
    for name, cotangent in program.derivation.cotangents.items():
        broken = generate(program.graph, mode="steps")
        ours = broken.module.backward

        def backward(saved: Any, grad_out: Any = None, key: str = name, ours: Any = ours) -> dict[str, Tensor]:
            grads = ours(saved, grad_out)
            return {**grads, key: grads[key] * 1.001}

        broken.module.backward = backward
        report = check(broken, *inputs, truth=False)
        assert not report.ok, cotangent.name
        assert "ours is wrong" in report[name].note


@pytest.mark.parametrize("change", [lambda e: -e, lambda e: 2 * e], ids=["sign", "factor"])
def test_a_corrupted_vjp_template_fails(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """The rule for tanh is wrong; everything after it is emitted from it in good faith."""
    import codegen.steps as steps

    plain = steps.passed

    def wrong(template: Any, position: int, shape: Any) -> Contribution:
        right = plain(template, position, shape)
        return replace(right, expr=change(right.expr)) if "tanh" in str(template.expr) else right

    inputs = small_inputs()
    monkeypatch.setattr(steps, "passed", wrong)
    steps.lowered.cache_clear()
    try:
        report = check(generate(small, *inputs, mode="steps"), *inputs)
    finally:
        monkeypatch.undo()
        steps.lowered.cache_clear()
    assert not report.ok
    assert any("ours is wrong" in line for line in report.failures)
    assert check(generate(small, *inputs, mode="steps"), *inputs).ok


def test_a_dropped_part_of_a_derivation_fails() -> None:
    """A node with fan-out loses one of its paths."""
    inputs = small_inputs()
    graph = trace(small, *inputs)
    whole = derive(graph)
    name = next(n for n, c in whole.cotangents.items() if len(c.parts) > 1)
    cut = replace(
        whole,
        cotangents={**whole.cotangents, name: replace(whole.cotangents[name], parts=whole.cotangents[name].parts[1:])},
    )
    assert len(StepsWriter(cut).blocks()) == len(StepsWriter(whole).blocks())
    from codegen.emit import steps_source

    report = check(Program(graph, cut, steps_source(cut), "steps", None, None), *inputs)
    assert not report.ok
    assert not report[name].ok


@pytest.mark.parametrize("mode", ["closed", "steps"])
def test_what_is_computed_without_a_gradient_has_none_on_any_side(mode: str) -> None:
    """A spectral norm: the vectors are a step of a power iteration under `no_grad`."""

    def forward(x: Tensor, w: Tensor, u: Tensor) -> Tensor:
        with torch.no_grad():
            v = torch.nn.functional.normalize(w.T @ u, dim=0)
            u = torch.nn.functional.normalize(w @ v, dim=0)
        return (x @ (w / (u @ w @ v)).T).tanh().sum()

    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(n, generator=generator, dtype=torch.float64) for n in ((5, 4), (3, 4), (3,))]
    report = check(generate(forward, *inputs, mode=mode), *inputs)
    assert report.ok, report
    assert report["w"].error is not None
    assert report["w"].error < 1e-12


def test_emitted_code_that_raises_is_no_pass() -> None:
    inputs = small_inputs()
    report = check(corrupted(generate(small, *inputs, mode="steps"), "x.T @", "x @"), *inputs)
    assert not report.ok
    assert "the emitted code raised RuntimeError" in report.failures[0]


def test_a_missing_gradient_is_no_pass() -> None:
    inputs = small_inputs()
    for key in ("w", "h"):
        report = check(corrupted(generate(small, *inputs, mode="steps"), f'"{key}":', f'"{key}_":'), *inputs)
        assert not report.ok
        assert any(line.startswith(f"{key}: ") for line in report.problems)
        assert "no node or input has this name" in report[f"{key}_"].note


def test_wrong_shapes_and_dtypes_are_no_pass() -> None:
    inputs = small_inputs()
    report = check(corrupted(generate(small, *inputs, mode="steps"), '"w": dw', '"w": dw.float()'), *inputs)
    assert "float32 (4, 5), not float64 (4, 5)" in report["w"].note
    report = check(corrupted(generate(small, *inputs, mode="steps"), '"w": dw', '"w": dw.T'), *inputs)
    assert "float64 (5, 4), not float64 (4, 5)" in report["w"].note
    assert not report.ok


def test_a_wrong_convention_at_a_kink_shows_on_the_kink_only() -> None:
    def forward(x: Tensor) -> Tensor:
        return x.relu().sum()

    program = corrupted(generate(forward, torch.randn(4), mode="steps"), "<= 0", "< 0")
    assert check(program, torch.tensor([-1.0, 2.0, 0.5, -3.0])).ok
    report = check(program, torch.tensor([-1.0, 0.0, 0.5, -3.0]))
    assert not report.ok
    assert "ours is wrong" in report["x"].note


def test_a_forward_that_is_not_what_was_traced_fails() -> None:
    def traced(x: Tensor) -> Tensor:
        return x.tanh()

    def other(x: Tensor) -> Tensor:
        return x.sin()

    x = torch.randn(3, dtype=torch.float64)
    program = generate(traced, x, mode="steps")
    assert check(program, x).ok
    report = check(program, x, forward=other)
    assert not report.ok
    assert len(report.problems) == 2


def test_no_truth_is_no_pass() -> None:
    """A mismatch that the truth cannot decide stays one."""

    def forward(x: Tensor) -> Tensor:
        return x.tanh()

    x = torch.randn(3, dtype=torch.float64)
    program = corrupted(generate(forward, x, mode="steps"), "torch.ops", "1.1 * torch.ops")
    node = program.graph["out"]
    program.graph.__dict__["by_name"] = {**program.graph.by_name}
    object.__setattr__(node, "__dict__", {**node.__dict__, "definition": ((), None)})
    report = check(program, x)
    assert not report.ok
    assert "the truth is out of reach" in report["x"].note


# -- autograd is not the truth ------------------------------------------------------------------------------------------------


def test_where_autograd_overflows_a_right_gradient_passes() -> None:
    """Naive softmax at large scores: autograd has nan, the gradient of a stable program is right."""

    def forward(x: Tensor) -> Tensor:
        e = x.exp()
        p = e / e.sum(-1, keepdim=True)
        return p

    x = torch.tensor([[800.0, 799.0, 3.0]], dtype=torch.float64)
    program = generate(forward, x, mode="steps")
    plain = program.module

    class Stable:
        """Stands in for a closed form: only what it returns is of interest here."""

        Saved = plain.Saved

        @staticmethod
        def forward(x: Tensor) -> Any:
            p = x.softmax(-1)
            return p, plain.Saved(*[p if name == "p" else x for name in plain.Saved._fields])

        @staticmethod
        def backward(saved: Any, grad_out: Any = None) -> dict[str, Tensor]:
            g = torch.ones_like(saved.p) if grad_out is None else grad_out
            return {"x": saved.p * (g - (g * saved.p).sum(-1, keepdim=True))}

    program.module = Stable  # type: ignore[assignment]
    program.mode = "closed"
    report = check(program, x)
    assert report["x"].note == "autograd is not finite, ours is right"


def test_inputs_that_torch_refuses_are_an_input_error() -> None:
    x = batchnorm_eps.example_inputs(torch.Generator().manual_seed(0))
    program = generate(batchnorm_eps.forward, *x.values(), mode="steps")
    with pytest.raises(InputError, match="dimension"):
        check(program, torch.randn(5), x["w"], x["b"])
    with pytest.raises(InputError):
        check(program, torch.randn(5, 10), torch.randn(9), x["b"])


def test_a_gradient_of_zero_that_autograd_has_by_luck() -> None:
    """Rows of a softmax sum to one; which rounding is left over says nothing about who is right."""

    def forward(w: Tensor, i: Tensor) -> Tensor:
        p = w.softmax(1)
        return p[i].sum(1)

    for seed in range(5):
        w = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        program = generate(forward, w, torch.tensor([0, 2]), mode="steps")
        report = check(program, w, torch.tensor([0, 2]), truth=False)
        assert report.ok, report.failures


def test_rounding_is_taken_for_no_kink() -> None:
    """A vector and its negative have a cosine of -1 wherever they are: all that is left of the gradient is rounding."""

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        cosine = torch.nn.functional.cosine_similarity
        return cosine(-x, x, dim=0).softmax(0), cosine(x[:1], x[:1], dim=0)

    generator = torch.Generator().manual_seed(7)
    program = generate(forward, torch.randn(2, 2, dtype=torch.float64, generator=generator))
    for _ in range(40):
        x, *g = (torch.randn(s, dtype=torch.float64, generator=generator) for s in ((2, 2), (2,), (2,)))
        report = check(program, x, grad_out=g)
        assert report.ok, report.failures


def test_whether_a_result_is_zero_or_a_last_bit_is_left_to_rounding() -> None:
    """A distribution's divergence from itself is 0; its square root has no derivative there, next to it any sign."""

    def forward(v: Tensor) -> Tensor:
        p = torch.nn.functional
        return p.kl_div(v.log_softmax(-1), v.softmax(-1), reduction="sum").square().sqrt()

    lost = 0
    for seed in range(12):
        v = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        program = generate(forward, v)
        report = check(program, v, truth=False)
        assert report.ok, report.failures
        lost += report["v"].note.startswith("not finite")
    assert 0 < lost < 12


def test_no_result_where_autograd_has_one_all_around_is_a_mismatch() -> None:
    def forward(x: Tensor) -> Tensor:
        return torch.where(x == 0, torch.ones_like(x), x.sin() / torch.where(x == 0, 1.0, x)).sum()

    x = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    program = generate(forward, x, mode="steps")
    assert check(program, x).ok
    report = check(corrupted(program, "dx = ", "dx = 0 / x + "), x)
    assert report["x"].note == "ours is not finite, the truth is"


def test_a_small_gradient_is_not_taken_for_noise() -> None:
    """A mean over many rows scales a gradient far below the cotangent; a flipped sign is still seen."""

    def forward(x: Tensor) -> Tensor:
        return x.tanh().mean()

    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    program = generate(forward, x, mode="steps")
    assert check(program, x, truth=False).ok
    assert not check(corrupted(program, "dx = ", "dx = -"), x, truth=False).ok


@pytest.mark.parametrize("mode", ["steps", "closed"])
def test_what_has_the_dtype_of_an_input_follows_it(mode: str) -> None:
    """The forward reads `x.dtype`: what was recorded in float64 is no mismatch, and no error, in float32."""

    def forward(x: Tensor, w: Tensor, i: Tensor) -> Tensor:
        picked = nn.functional.one_hot(i, x.shape[1]).to(x.dtype)
        far = torch.eye(x.shape[0], dtype=x.dtype) * 3
        return torch.dot((x * picked).sum(0), picked.mean(0)) + (far @ (x.abs() < 1).to(x.dtype) @ w).exp().sum()

    x, w, i = torch.randn(4, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    program = generate(forward, x, w, i, mode=mode)
    for dtype in (torch.float64, torch.float32):
        report = check(program, x.to(dtype), w.to(dtype), i)
        assert report.ok, report.failures


def test_a_dtype_that_is_not_that_of_the_inputs_is_said_to_differ() -> None:
    def forward(x: Tensor) -> Tensor:
        return (x * 3).to(torch.float64).sin()

    x = torch.randn(5, dtype=torch.float64)
    assert check(generate(forward, x), x).ok
    problems = check(generate(forward, x), x.float()).problems
    assert problems == ("out: the forward itself returns it in float64, what was recorded in float32",)


def test_ones_are_those_that_backward_makes_where_the_result_lies_in_columns() -> None:
    """An einsum may return its result in columns, and a product with ones in columns is rounded otherwise."""

    def forward(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        reach = a.cumsum(0)
        decay = torch.tril(torch.exp(reach[:, None] - reach[None, :]))
        return torch.einsum("ij,is,js,jd->id", decay, c, b, x)

    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((5, 8), (5,), (5, 4), (5, 4))]
    report = check(generate(forward, *inputs), *inputs)
    assert report.ok, report.failures
