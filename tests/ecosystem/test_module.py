"""The emitted `Module`: names, state dicts both ways, training, copies, pickles, modes."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import codegen
from tests.ecosystem.models import CASES, WithBatchNorm, gathers, loss_of

SEED = 3
MODULES = ["batch norm", "batch norm, evaluating", "dropout", "attention", "tied"]
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own


def made(name: str) -> tuple[nn.Module, nn.Module, tuple[Any, ...]]:
    """An emitted module, the original in the same state, and arguments."""
    torch.manual_seed(SEED)
    original, inputs = CASES[name].make()
    program = codegen.generate(original, *inputs)
    state = {**dict(original.named_parameters(remove_duplicate=False)), **dict(original.named_buffers())}
    return program.module.Module(**state), copy.deepcopy(original), inputs


@pytest.mark.parametrize("name", MODULES)
def test_names_are_the_originals_and_state_dicts_load_both_ways(name: str) -> None:
    emitted, original, _ = made(name)
    assert [n for n, _ in emitted.named_parameters() if "frozen" not in n] == [
        n for n, _ in original.named_parameters() if "frozen" not in n
    ]
    assert {n: p.requires_grad for n, p in emitted.named_parameters()} == {
        n: p.requires_grad for n, p in original.named_parameters()
    }
    assert set(emitted.state_dict()) == set(original.state_dict())
    for a, b in ((emitted, original), (original, emitted)):
        with torch.no_grad():
            for t in a.state_dict().values():
                t.add_(1)
        b.load_state_dict(a.state_dict(), strict=True)
        for key, value in b.state_dict().items():
            assert torch.equal(value, a.state_dict()[key])


@pytest.mark.parametrize("name", MODULES)
def test_it_trains_as_the_original_does(name: str) -> None:
    emitted, original, inputs = made(name)
    losses: list[list[float]] = []
    for model in (emitted, original):
        torch.manual_seed(SEED)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        losses.append([])
        for _ in range(5):
            optimizer.zero_grad()
            loss = loss_of(model(*inputs))
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-7)
    assert losses[0][-1] != losses[0][0]
    rest = {n: (emitted.state_dict()[n], value) for n, value in original.state_dict().items() if n != "fc1.bias"}
    for (
        a,
        b,
    ) in rest.values():  # the bias in front of a BatchNorm has no gradient; AdamW makes steps of autograd's rounding
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def twin_of(model: nn.Module) -> nn.Module:
    """Pickled and read back."""
    return pickle.loads(pickle.dumps(model))  # noqa: S301


@pytest.mark.parametrize("name", MODULES)
def test_copies_and_pickles_are_modules_of_their_own(name: str) -> None:
    emitted, _, inputs = made(name)
    stored = io.BytesIO()
    torch.save(emitted, stored)
    stored.seek(0)
    for twin in (copy.deepcopy(emitted), twin_of(emitted), torch.load(stored, weights_only=False)):
        torch.manual_seed(SEED)
        expected = loss_of(copy.deepcopy(emitted)(*inputs))
        torch.manual_seed(SEED)
        torch.testing.assert_close(loss_of(twin(*inputs)), expected)
        with torch.no_grad():
            next(twin.parameters()).add_(1)
        assert not torch.equal(next(twin.parameters()), next(emitted.parameters()))


def test_compiled_without_a_break_and_with_its_buffers_renewed() -> None:
    emitted, original, inputs = made("batch norm")
    torch.compiler.reset()
    compiled = torch.compile(emitted, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        compiled(*inputs).backward()
        original(*inputs).backward()
    torch.testing.assert_close(dict(emitted.named_buffers()), dict(original.named_buffers()), rtol=1e-9, atol=1e-11)
    for name, p in original.named_parameters():
        torch.testing.assert_close(emitted.get_parameter(name).grad, p.grad, rtol=1e-7, atol=1e-11)


def test_a_plain_functions_module_takes_what_it_is_given_as_parameters() -> None:
    torch.manual_seed(SEED)
    _, (x, y, C, w, b) = CASES["gathers"].make()
    program = codegen.generate(gathers, x, y, C, w, b)
    model = program.module.Module(C=C, w=w, b=b)
    assert [n for n, _ in model.named_parameters()] == ["C", "w", "b"]
    model(x, y).backward()
    leaves = [t.detach().requires_grad_() for t in (C, w, b)]
    gathers(x, y, *leaves).backward()
    for mine, theirs in zip(model.parameters(), leaves, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-11)
    data = program.module.Module(x=x, y=y)
    assert [n for n, _ in data.named_buffers()] == ["x", "y"]
    torch.testing.assert_close(data(C, w, b), gathers(x, y, C, w, b))
    with pytest.raises(TypeError, match="2 tensors were given for x, y, b"):
        program.module.Module(C=C, w=w)(x, y)
    with pytest.raises(TypeError, match="q is no input of gathers; those are x, y, C, w, b"):
        program.module.Module(q=C)


@pytest.mark.parametrize(
    ("name", "message"), [("batch norm", "in training mode"), ("batch norm, evaluating", "in evaluation mode")]
)
def test_the_other_mode_is_refused_where_it_makes_a_difference(name: str, message: str) -> None:
    emitted, original, inputs = made(name)
    assert emitted.training == original.training
    emitted.train(not emitted.training)
    with pytest.raises(RuntimeError, match=f"this is WithBatchNorm {message}: call"):
        emitted(*inputs)
    indifferent, _, given = made("tied")
    torch.testing.assert_close(indifferent.eval()(*given), indifferent.train()(*given))


def test_a_module_inside_of_another() -> None:
    """Parameters of the outer one are trained through it."""
    torch.manual_seed(SEED)
    inner = WithBatchNorm().double()
    x, y = torch.randn(8, 5, dtype=torch.float64), torch.randint(3, (8,))
    emitted = codegen.generate(inner, x, y).module.Module(**inner.state_dict())

    def grads(inside: nn.Module) -> list[Tensor]:
        torch.manual_seed(SEED)
        first = nn.Linear(5, 5).double()
        inside(first(x).relu(), y).backward()
        return [p.grad for p in first.parameters() if p.grad is not None]

    torch.testing.assert_close(grads(emitted), grads(inner), rtol=1e-8, atol=1e-11)
