"""Sums of looked-up rows are bags of rows, and pass each row back to all of its places at once."""

import pytest
import torch
from torch import Generator

from codegen.loop.kernels import RULES
from tests.loop.networks import Network, compared
from tests.loop.test_loop_layernorm import loop_of

WORDS = ("m, k = c[x].sum(2), e[x].mean(2)", "h = (torch.softmax((m * m[:, :1]).sum(2), 1)[..., None] * k).sum(1) @ w")
TWO = ("m, k = c[x].sum(2), e[x].mean(2)", "h = (m * k).sum(1) @ w")
ONE = ("h = torch.tanh(c[x].mean(1)) @ w",)
ALSO_READ = ("r = c[x]", "h = (r.sum(1) ** 2 - (r ** 2).sum(1)) @ w")


def network(
    lines: tuple[str, ...], symbols: int, width: int, places: tuple[int, ...], batch: int, dtype: torch.dtype
) -> Network:
    """A network of sums of `places` rows of a table."""
    g = Generator().manual_seed(0)
    params = {k: torch.randn(symbols, width, generator=g, dtype=dtype) / 4 for k in ("c", "e")}
    params["w"] = torch.randn(width, 6, generator=g, dtype=dtype) / 4
    if not any("e[x]" in line for line in lines):
        del params["e"]
    text = "\n    ".join([f"def network(x, y, {', '.join(params)}):", *lines, "return F.cross_entropy(h, y)\n"])
    data = torch.randint(0, symbols, (300, *places), generator=g), torch.randint(0, 6, (300,), generator=g)
    return Network(text, params, data, batch, 0.9 if symbols == 30 else 0.0)


@pytest.mark.parametrize(
    ("lines", "sizes", "dtype", "found"),
    [
        (WORDS, (30, 8, (4, 5), 16), torch.float32, ("2 bag(", "1 x_counts_all = ")),
        (TWO, (30, 8, (4, 5), 16), torch.float32, ("2 bag(", "1 x_counts_all = ", "2 .addmm_(x_counts_T")),
        (ONE, (3000, 8, (6,), 16), torch.float32, ("1 bag(", "1 c.index_add_(", "0 order")),
        (ONE, (3000, 160, (32,), 256), torch.float32, ("2 bag(", "1 torch.sort(", "0 scatter_add_(")),
        (TWO, (3000, 160, (3, 16), 128), torch.float64, ("4 bag(", "1 torch.sort(", "0 scatter_add_(")),
        (ONE, (3000, 8, (6,), 16), torch.float64, ("0 bag(",)),  # torch has a vector form in float32 alone
        (ALSO_READ, (30, 8, (6,), 16), torch.float32, ("0 bag(",)),  # looked up anyway
    ],
)
def test_sums_of_rows_are_bags(
    lines: tuple[str, ...], sizes: tuple[int, int, tuple[int, ...], int], dtype: torch.dtype, found: tuple[str, ...]
) -> None:
    given = network(lines, *sizes, dtype)
    body = loop_of(given).source.split("def trainer", 1)[1]
    for count, text in (f.split(" ", 1) for f in found):
        assert body.count(text) == int(count), text
    assert "index_put" not in body
    assert compared(given) == "the same"


def test_the_rules_say_what_they_use() -> None:
    source = loop_of(network(WORDS, 30, 8, (4, 5), 16, torch.float32)).source
    texts = {r.name: r.text for r in RULES}
    assert texts["sums of rows"] in source
    assert texts["counts"] in source
    assert texts["sums of symbols"] not in source
