"""What a trace records: names, sizes, places, and the errors for what it cannot record."""

import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from engine import ShapeError, TraceError, trace
from engine.evaluate import evaluate
from examples import mlp

RANDN = torch.randn


def mlp_graph() -> Any:
    return trace(mlp.forward, *mlp.example_inputs(torch.Generator().manual_seed(0)).values())


def test_names_are_the_forwards_own_locals() -> None:
    names = [n.name for n in mlp_graph().nodes]
    for name in [
        "x",
        "y",
        "C",
        "w1",
        "w2",
        "b2",
        "bnw",
        "bnb",
        "mean_proj",
        "var_proj",
        "emb",
        "hpreact",
        "bnmeani",
        "bnstdi",
        "hpreact_bn",
        "h",
        "logits",
        "exp_l",
        "count",
        "probs",
        "nlls",
        "loss",
    ]:
        assert name in names
    assert len(names) == len({*names})
    assert all(re.fullmatch(r"[A-Za-z]\w*", name) for name in names)


def test_nameless_temporaries_are_named_after_what_they_feed() -> None:
    graph = mlp_graph()
    assert [n.name for n in graph.nodes if n.name.startswith("hpreact_bn_")] == [
        "hpreact_bn_sub",
        "hpreact_bn_div",
        "hpreact_bn_mul",
    ]
    assert graph["emb_getitem"].forward_text() == "C[x]"


def test_rebinding_a_name_counts_up() -> None:
    def forward(x):
        x = x + 1
        y = x.exp()
        y = y * x
        return y

    assert [n.name for n in trace(forward, RANDN(3)).nodes] == ["x", "x_1", "y", "y_1"]


def test_every_node_knows_its_file_and_line() -> None:
    def forward(x):
        y = x.exp()
        return y + 1

    first = forward.__code__.co_firstlineno
    nodes = [n for n in trace(forward, RANDN(3)).nodes if not n.is_input]
    assert [(n.source.line - first, n.source.text) for n in nodes if n.source] == [
        (1, "y = x.exp()"),
        (2, "return y + 1"),
    ]
    assert all(n.source is not None and n.source.file.endswith("test_trace.py") for n in nodes)


def test_the_repr_reads_as_a_program() -> None:
    text = repr(mlp_graph())
    assert text.startswith("def forward(x, y, C, w1, w2, b2, bnw, bnb):\n")
    assert text.endswith("    return loss")
    for line in (
        "hpreact        = emb @ w1",
        "probs          = exp_l / count",
        "nlls           = -nlls_log",
        "= C[x]  # float32 (bs, ",
    ):
        assert line in text
    body = [line for line in text.splitlines()[1:] if not line.strip().startswith("#")]
    assert all(line.startswith("    ") for line in body)


def test_sizes_stay_symbolic() -> None:
    def forward(x, w):
        n, d = x.shape
        out = (x.view(n, -1) @ w / math.sqrt(d)).sum() / n
        return out

    graph = trace(forward, RANDN(5, 4), RANDN(4, 3))
    assert {str(s): where for s, where in graph.sizes.items()} == {"n": ("x", 0), "d": ("x", 1), "n2": ("w", 1)}
    assert graph.guards == ()


def test_a_size_used_as_a_number_is_guarded() -> None:
    def forward(x):
        out = x
        for _ in range(x.shape[1]):
            out = out * 2
        return out

    (guard,) = trace(forward, RANDN(5, 3)).guards
    assert guard.value == 3
    assert "test_trace.py" in guard.where


def test_a_range_as_an_index_is_not_fixed() -> None:
    def forward(x, i):
        n = x.shape[0]
        return x[range(n), i]

    assert trace(forward, RANDN(5, 3), torch.zeros(5, dtype=torch.int64)).guards == ()


def test_a_literal_that_splits_dimensions_is_guarded() -> None:
    def forward(x):
        return x.view(-1, 12)

    graph = trace(forward, RANDN(5, 3, 4))
    assert str(graph[graph.outputs[0]].shape[0]) == "n0"
    assert [g.value for g in graph.guards] == [12]


def test_sizes_of_one_are_the_number_one() -> None:
    graph = trace(lambda x, y: x * y, RANDN(4, 1), RANDN(1, 6))
    assert [str(s) for s in graph["x"].shape] == ["n0", "1"]


def test_dimension_names_from_jaxtyping_without_examples() -> None:
    def forward(
        x: Float[Tensor, "batch features"],
        i: Int[Tensor, "batch"],
        w: Float[Tensor, "features classes"],
    ) -> Tensor:
        return (x @ w)[torch.arange(x.shape[0]), i]

    graph = trace(forward)
    assert [str(s) for s in graph["x"].shape] == ["batch", "features"]
    assert [str(s) for s in graph["w"].shape] == ["features", "classes"]
    assert not graph["i"].dtype.is_floating_point


@pytest.mark.parametrize(
    ("method", "function"),
    [
        (lambda x: x.tanh(), torch.tanh),
        (lambda x: x.relu(), F.relu),
        (lambda x: x.softmax(-1), lambda x: F.softmax(x, dim=-1)),
        (lambda x: x.sum(0, keepdim=True), lambda x: torch.sum(x, dim=0, keepdims=True)),
        (lambda x: x.sigmoid(), F.sigmoid),
        (lambda x: x.exp(), torch.exp),
        (lambda x: x.view(-1), lambda x: x.reshape(-1)),
        (lambda x: x @ x.T, lambda x: torch.matmul(x, torch.transpose(x, 0, 1))),
        (lambda x: x**2, lambda x: torch.pow(x, 2)),
        (lambda x: 1 - x, lambda x: torch.rsub(x, 1)),
    ],
)
def test_spellings_of_one_op_have_one_definition(method: Any, function: Any) -> None:
    texts = []
    for f in (method, function):
        graph = trace(f, RANDN(4, 3))
        last = graph[graph.outputs[0]]
        assert last.definition is not None
        texts.append((last.shape, last.op, re.sub(r"\bi\d+|%\d+", "i", str(last.definition[1]))))
    assert texts[0][0] == texts[1][0]


def test_modules_by_their_parameter_names() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    graph = trace(model, RANDN(5, 4))
    assert [graph.key(n) for n in graph.parameters] == ["0.weight", "0.bias"]
    assert all(name.isidentifier() for name in graph.inputs)
    assert isinstance(model[0].weight, nn.Parameter)


def test_buffers_become_outputs() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.total = self.total * 0.9 + x.detach().mean(0) * 0.1
            return x - self.total

    model = Counting()
    graph = trace(model, RANDN(5, 3))
    assert list(graph.buffers) == ["total"]
    assert torch.equal(model.total, torch.zeros(3))


def located(error: pytest.ExceptionInfo[BaseException], line: str) -> bool:
    return bool(re.search(r"test_trace\.py:\d+", str(error.value))) and line in str(error.value)


def test_an_unknown_op() -> None:
    def forward(x):
        return torch.special.airy_ai(x) * 2

    with pytest.raises(
        TraceError, match=r"airy_ai.*not in the op table.*Write it with supported ops, or add a row"
    ) as error:
        trace(forward, RANDN(3, 3))
    assert located(error, "return torch.special.airy_ai(x) * 2")


@pytest.mark.parametrize(
    ("refused", "remedy"),
    [
        (lambda x: torch.linalg.eigh(x)[0], "Or pass what they give as an input"),
        (lambda x: torch.svd(x)[1], "torch.linalg.cholesky"),
        (lambda x: torch.linalg.qr(x)[1], r"torch.linalg.cholesky\(A.mT @ A\)"),
        (lambda x: torch.linalg.lstsq(x, x)[0], r"torch.linalg.solve\(A.mT @ A, A.mT @ B\)"),
        (lambda x: torch.linalg.pinv(x), "Solve the normal equations"),  # noqa: PLW0108
        (lambda x: torch.linalg.inv_ex(x)[0], "Leave out `_ex`"),
        (lambda x: torch.linalg.matrix_exp(x), "as many terms of its series"),  # noqa: PLW0108
        (lambda x: x.masked_select(x > 0).sort()[0], r"torch.where\(mask, x, 0\)"),
        (lambda x: torch.fft.fft(x).abs(), "complex numbers are outside"),
        (lambda x: torch.linalg.matrix_norm(x, 2), "needs singular values"),
        (lambda x: torch.autograd.functional.jacobian(torch.sin, x), "a gradient inside of a forward"),
        (lambda x: torch.autograd.functional.hvp(lambda z: z.exp().sum(), x, x)[1], "a gradient inside of a forward"),
        (lambda x: x[torch.randperm(3, generator=torch.Generator())], "Leave the generator out"),
        (torch.vmap(lambda r: r * r.sum()), "torch.einsum"),
        (lambda x: torch.func.grad(lambda z: z.exp().sum())(x) + x, "around the emitted function"),
        (lambda x: torch.bincount(x.long().flatten()) * x.sum(), "pass minlength"),
        (lambda x: torch.nn.functional.one_hot(x.long()) * x.sum(), "pass num_classes"),
        (lambda x: torch.where(x > 0)[0].sort()[0].sum() * x, r"torch.where\(mask, x, 0\)"),
        (lambda x: torch.tensor([x.sum(), x.mean()]), "torch.stack"),
        (lambda x: torch.as_tensor([x.sum(), x.mean()]), "torch.stack"),
        (lambda x: torch.distributions.Gamma(x, x).rsample(), "drawn by rejection"),
        (lambda x: torch.distributions.Beta(x, x).rsample(), "drawn by rejection"),
        (lambda x: torch.distributions.Normal(x, x, validate_args=True).mean, "Leave it out"),
        (lambda x: x * torch.tensor([1.0, 2.0, 3.0]).bernoulli_(0.5), "the same in every call.*torch.rand"),
    ],
)
def test_an_op_without_a_row_says_what_to_do_instead(refused: Any, remedy: str) -> None:
    def forward(x):
        return refused(x).sum()

    with pytest.raises(TraceError, match=remedy) as error:
        trace(forward, RANDN(3, 3))
    assert located(error, "")


@pytest.mark.parametrize(
    "moved",
    [
        lambda x: x.to(x.device),
        lambda x: x.to("cpu"),
        lambda x: x.to(device=torch.device("cpu"), non_blocking=True),
        lambda x: x.to("cpu", x.dtype),
        lambda x: x.cpu(),
        lambda x: x + x.new_zeros(3, device=x.device),
        lambda x: x + torch.zeros(3, device=x.device),
    ],
)
def test_a_tensor_is_moved_to_where_the_others_are(moved: Any) -> None:
    graph = trace(lambda x: moved(x) * 2, RANDN(4, 3))
    value = RANDN(2, 3)
    out = evaluate(graph, {"x": value})[graph.outputs[0]]
    torch.testing.assert_close(torch.from_numpy(out), 2 * value.double())


@pytest.mark.parametrize(
    "moved", [lambda x: x.to("cuda"), lambda x: x.to(0), lambda x: x.to(device="cuda"), lambda x: x.cuda()]
)
def test_a_tensor_is_not_moved_elsewhere(moved: Any) -> None:
    with pytest.raises(TraceError, match="leave devices out"):
        trace(moved, RANDN(3))


@pytest.mark.parametrize(
    "read", [lambda x: x.sum().item(), lambda x: float(x.sum()), lambda x: x.tolist(), lambda x: int(x.sum())]
)
def test_reading_a_value(read: Any) -> None:
    def forward(x):
        return x * read(x)

    with pytest.raises(TraceError, match=r"reads a tensor's value .*Keep the value a tensor") as error:
        trace(forward, RANDN(3))
    assert located(error, "")


def test_a_tensor_can_be_printed() -> None:
    seen: list[str] = []

    def forward(x):
        seen.extend((repr(x), str(x), f"{x}"))
        return x.sum()

    trace(forward, RANDN(3, 2))
    assert seen == ["Tensor(shape=(3, 2), dtype=torch.float32, traced)"] * 3


def test_control_flow_on_a_value() -> None:
    def forward(x):
        if x.sum() > 0:
            return x
        return -x

    with pytest.raises(TraceError, match=r"control flow depends on a tensor's value.*torch\.where") as error:
        trace(forward, RANDN(3))
    assert located(error, "")


def test_control_flow_on_a_size_is_fine() -> None:
    def forward(x):
        return x.squeeze(1) if x.shape[1] == 1 else x

    assert len(trace(forward, RANDN(3, 1)).nodes) == 2


@pytest.mark.parametrize(
    "forward", [lambda x, m: (m - x).sum(), lambda x, m: (x * (1 - m)).sum()], ids=["m - x", "1 - m"]
)
def test_truth_values_are_not_subtracted(forward: Any) -> None:
    """torch's meta kernels let it pass."""
    x, m = torch.randn(3, 2), torch.ones(3, 2) > 0
    with pytest.raises(RuntimeError, match="bool tensor"):
        forward(x, m)
    with pytest.raises(ShapeError, match=r"sub on shapes .*test_trace.py:\d+: Subtraction.*bool tensor"):
        trace(forward, x, m)


def test_shapes_that_do_not_fit() -> None:
    def forward(x, w):
        return x @ w

    with pytest.raises(ShapeError, match=r"\(5, 4\), \(3, 2\)") as error:
        trace(forward, RANDN(5, 4), RANDN(3, 2))
    assert located(error, "return x @ w")


def test_a_product_of_two_dtypes_is_refused_as_torch_refuses_it() -> None:
    """torch's meta device, which says shapes and dtypes, lets it pass."""
    x, w = RANDN(3, 4).double(), RANDN(4, 2)
    for product in (torch.matmul, lambda x, w: torch.nn.functional.linear(x, w.T)):
        with pytest.raises(RuntimeError, match="dtype"):
            product(x, w.float())
        with pytest.raises(
            TraceError, match=r"test_trace.py:\d+ is of torch.float64 and torch.float32.*convert one of them"
        ):
            trace(lambda x, w, product=product: product(x, w).sum(), x, w.float())


def test_in_place_writes() -> None:
    def own(x):
        y = x.exp()
        y += 1
        return y

    def of_an_input(x):
        x.mul_(2)
        return x

    assert trace(own, RANDN(3)).outputs == ("y",) or trace(own, RANDN(3)).outputs == ("y_1",)

    def through_an_input(x):
        x[0] += 1
        return x

    def read_after_the_write(x):
        y = x.exp()
        first = y.reshape(-1)
        y[0] = 1
        return first.sum()

    def of_another_shape(x):
        y = x.exp()
        y.unsqueeze_(0)
        return y

    for forward in (of_an_input, through_an_input):
        with pytest.raises(TraceError, match=r"in-place write at .*py:\d+ changes an input"):
            trace(forward, RANDN(3))
    with pytest.raises(TraceError, match="reads a view of a tensor that was written in place since"):
        trace(read_after_the_write, RANDN(3, 2))
    with pytest.raises(
        ShapeError, match=r"cannot write torch.float32 \(1, 3\) into a tensor that is torch.float32 \(3,\)"
    ):
        trace(of_another_shape, RANDN(3))


def test_a_mask_in_brackets_says_what_to_write_instead() -> None:
    with pytest.raises(TraceError, match=r"cumsum at .*py:\d+: x\[mask\] .* torch.where\(mask, x, 0\)"):
        trace(lambda x: x[x > 0].cumsum(0).sum(), RANDN(3))


@pytest.mark.parametrize(
    "view",
    [
        lambda b: torch.einsum("ij->ji", b),
        lambda b: torch.einsum("ii->i", b[:3, :3]),
        lambda b: torch.atleast_3d(b),  # noqa: PLW0108
        lambda b: b.split(2)[1],
        lambda b: b.unfold(0, 2, 2),
        lambda b: b.T.flatten(1),
    ],
)
def test_what_shares_memory_is_a_view_whatever_made_it(view: Any) -> None:
    """torch's own kernels say so: a write that would change the other one as well is refused."""

    def through_the_view(x: torch.Tensor) -> torch.Tensor:
        b = x * 2
        v = view(b)
        v += 1
        return b + 0

    def under_the_view(x: torch.Tensor) -> torch.Tensor:
        b = x * 2
        v = view(b)
        b += 1
        return v * 1

    with pytest.raises(TraceError, match=r"an in-place write at .* a view of it or a copy"):
        trace(through_the_view, torch.ones(4, 3))
    with pytest.raises(TraceError, match="reads a view of a tensor that was written in place since"):
        trace(under_the_view, torch.ones(4, 3))


def test_a_write_without_gradient_into_what_has_one() -> None:
    """torch would pass gradients on as if nothing had been written; what has none, such as a copy, may be written."""

    def whole(x: torch.Tensor) -> torch.Tensor:
        t = x.sin()
        with torch.no_grad():
            t.mul_(3)
        return t.square()

    def part(x: torch.Tensor) -> torch.Tensor:
        t = x.sin()
        with torch.no_grad():
            t[0] = 0
        return t.square()

    def beside(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            t = x * 2
            t[0] = 0
            t += 1
        return x * t

    for forward in (whole, part):
        with pytest.raises(
            TraceError, match=r"in-place write at .*test_trace.py:\d+ is under no_grad, .*\(new - x\).detach"
        ):
            trace(forward, torch.ones(4, 3))
    assert trace(beside, torch.ones(4, 3)).single


def test_autocast_is_not_passed_over() -> None:
    """Its casts are no calls, so that a trace would compute in another precision than the forward, and nobody would notice."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return (x @ x.T).sum()

    with pytest.raises(TraceError, match=r"autocast is on at .*test_trace.py:\d+, .*Cast where you want it"):
        trace(forward, torch.ones(3, 4))


def test_too_few_and_too_many_inputs() -> None:
    def forward(x, w):
        return x @ w

    with pytest.raises(TraceError, match="needs w: pass example tensors"):
        trace(forward, RANDN(2, 2))
    with pytest.raises(TraceError, match=r"takes 2 inputs \(x, w\) and was given 3"):
        trace(forward, RANDN(2, 2), RANDN(2, 2), RANDN(2, 2))


def test_a_tensor_that_is_not_an_input() -> None:
    hidden = RANDN(50, 50)

    def forward(x):
        return x @ hidden

    with pytest.raises(TraceError, match=r"not one of its inputs.*Pass it as an argument"):
        trace(forward, RANDN(3, 50))


def test_what_is_not_a_tensor_cannot_be_returned() -> None:
    with pytest.raises(TraceError, match=r"must return a tensor.*returned int"):
        trace(lambda x: x.shape[0], RANDN(3))
    with pytest.raises(TraceError, match="returned float"):
        trace(lambda x: 3.0, RANDN(3))


def test_a_trace_leaves_python_as_it_was() -> None:
    import builtins
    import sys

    def state():
        return builtins.range, math.sqrt, sys.gettrace(), vars(torch.distributions.Distribution)["_validate_args"]

    before = state()
    with pytest.raises(TraceError):
        trace(lambda x: x.item(), RANDN(3))
    assert state() == before


def test_a_lazy_module_is_called_first() -> None:
    module = torch.nn.LazyLinear(2)
    with pytest.raises(TraceError, match=r"LazyLinear.weight has no shape yet: call the module once"):
        trace(module, torch.ones(3, 4))
    module(torch.ones(3, 4))
    assert trace(module, torch.ones(3, 4)).inputs == ("input", "weight", "bias")


def test_a_misspelt_method_and_a_device_are_told_with_their_line() -> None:
    with pytest.raises(
        AttributeError,
        match=r"'Tensor' object has no attribute 'sotfmax', at .*test_trace.py:\d+. Did you mean 'softmax'",
    ):
        trace(lambda x: x.sotfmax(1), torch.randn(2, 3))
    with pytest.raises(TraceError, match=r"\.cuda\(\) at .*test_trace.py:\d+: leave devices out"):
        trace(lambda x: x.cuda(), torch.randn(2, 3))

    def by_name(x: Tensor, *, w: Tensor) -> Tensor:
        return x * w

    with pytest.raises(TraceError, match=r"takes 1 inputs \(x\) and was given 2; w can only be given by name"):
        trace(by_name, torch.randn(2), torch.randn(2))


def test_a_mean_of_one_number_by_a_mask() -> None:
    """The entries of a tensor without dimensions are counted, too."""
    assert trace(lambda x: torch.masked.mean(x * 2), torch.tensor(2.0)).single
