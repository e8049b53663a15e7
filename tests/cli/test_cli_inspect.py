"""`codegen inspect`: a node or the whole program, as text, LaTeX, Markdown, HTML and drawings."""

import io
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from codegen.cli import inspecting
from tests.cli.conftest import Command


def test_a_node_in_the_terminal(command: Command) -> None:
    done = command("inspect", "mlp", "hpreact")
    assert (done.code, done.err) == (0, "")
    for part in (
        "hpreact  float32 (bs, ",
        "forward, examples/mlp.py:",
        "hpreact = emb @ w1",
        "hpreact[i,j] = Σ_k emb[i,k] w1[k,j]",
        "through bnmeani",
        "∂bnmeani[0,i]/∂hpreact[j,i] = mean_proj[0,j]",
        "fan-out: 3 paths add up",
        "dhpreact[i,j] = ",
        "dhpreact = ",
    ):
        assert part in done.out


def test_an_input_and_a_constant(command: Command) -> None:
    table = command("inspect", "mlp", "C").out
    assert "scattered back along its index" in table
    assert "dC.index_put_(" in table
    assert "none: no gradient goes through it" in command("inspect", "mlp", "var_proj").out


def test_the_whole_program(command: Command, recipe: Path) -> None:
    done = command("inspect", recipe)
    assert done.code == 0
    assert "def forward(x, w):" in done.out
    assert "h          = x @ w" in done.out
    assert "dh[i,j] = (1 - p[i,j]^2) dp[i,j]" in done.out
    closed = done.out.split("In closed form")[1]
    assert "dh[i,j] = 2 (1 - p[i,j]^2) grad_out p[i,j] / (n0 n2)" in closed
    assert "Saved for the backward: 18 elements" in closed


def test_the_way_to_the_closed_form(command: Command, recipe: Path) -> None:
    out = command("inspect", recipe, "h").out
    states = [
        "1. Chain rule: h is read by p",
        "2. Chain rule again, ",
        "where dp[i,j] = ",
        "emitted in closed.py",
    ]
    places = [out.index(s) for s in states]
    assert places == sorted(places)


def test_why_the_forward_reads_as_it_does(command: Command) -> None:
    whole, node = command("inspect", "cross_entropy").out, command("inspect", "cross_entropy", "probs").out
    assert "The forward as closed.py computes it, where that is not as it was written:" in whole
    states = [
        "probs in the forward of closed.py",
        "1. As the forward has it",
        "probs[i,j] = counts[i,j] / probs_sum[i,0]",
        "2. Definitions are written out until a kernel of torch is met that does not overflow",
        "3. The logarithm of shares is computed once, and they are its exponential",
        "probs = probs_log.exp()",
    ]
    told = node[node.index(states[0]) :]
    places = [told.index(s) for s in states]
    assert places == sorted(places)
    markdown = command("inspect", "cross_entropy", "probs", "--format", "markdown").out
    assert "**3.** The logarithm of shares is computed once" in markdown
    page = command("inspect", "cross_entropy", "--format", "html").out
    assert "In the forward of closed.py" in page
    assert "<li>Torch computes f - log Σ exp(f) by <code>log_softmax</code>, which does not overflow" in page


@pytest.mark.parametrize("width", [80, 120])
def test_a_node_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Console(width=width, record=True, force_terminal=True, file=io.StringIO())
    monkeypatch.setattr(inspecting, "Console", lambda *_, **__: page)
    inspecting.run_inspect("mlp", "hpreact", "text")
    lines = page.export_text().splitlines()
    assert {len(line) for line in lines} == {width}
    assert lines[0].startswith("╭")
    assert lines[-1].startswith("╰")


def test_latex(command: Command, recipe: Path) -> None:
    done = command("inspect", recipe, "h", "--format", "latex")
    assert done.out.startswith("\\begin{align*}\n")
    assert r"h_{i,j} &= \sum_{k} w_{k,j} x_{i,k}" in done.out
    assert r"\mathrm{dh}_{i,j} &= \left(1 - p_{i,j}^{2}\right) \mathrm{dp}_{i,j}" in done.out
    assert r"&\text{1. Chain rule: \texttt{h} is read by \texttt{p}} \\" in done.out
    assert command("inspect", recipe, "--format", "latex").code == 0


KNOWN = {
    *("begin", "end", "left", "right", "mathrm", "text", "texttt", "frac", "sqrt", "sum", "max", "partial", "delta"),
    *("tanh", "log", "exp", "bmod", "lfloor", "rfloor", "cdot", "leq", "infty", ",", "{", "}", "_"),
}
"""The macros of LaTeX and amsmath that a derivation may use."""


@pytest.mark.parametrize("name", ["mlp", "attention", "batchnorm", "layernorm", "cross_entropy"])
def test_latex_is_balanced_and_known(command: Command, name: str) -> None:
    text = command("inspect", name, "--format", "latex").out
    plain = re.sub(r"\\\\|\\[{}]", " ", text)
    depth = 0
    for c in plain:
        depth += (c == "{") - (c == "}")
        assert depth >= 0
    assert depth == 0
    assert text.count(r"\left") == text.count(r"\right")
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert set(re.findall(r"\\([a-zA-Z]+|[^a-zA-Z\\\s])", re.sub(r"\\\\", " ", text))) <= KNOWN
    assert "_" not in re.sub(r"\\_|_\{|_[0-9a-z]", "", text)


def test_html(command: Command, recipe: Path) -> None:
    done = command("inspect", recipe, "--format", "html", "--out", "page.html")
    assert (done.code, done.out, done.err) == (0, "", "")
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert command("inspect", recipe, "--format", "html").out == page
    assert "#node-h { display: block; }" in command("inspect", recipe, "h", "--format", "html").out


MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh())

    def forward(self, x):
        return self.layers(x).square().mean()


def example_inputs(generator):
    return {"x": torch.randn(6, 4, generator=generator)}
"""


def test_a_module(command: Command, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODULE, encoding="utf-8")
    page = command("inspect", "net.py:Net", "--format", "html")
    assert page.code == 0
    assert page.out.count("all agree with autograd") == 2
    assert "layers_0_weight" in page.out
    for form in ("text", "latex", "markdown", "svg", "dot"):
        assert command("inspect", "net.py:Net", "--format", form).code == 0


def test_svg(command: Command, recipe: Path) -> None:
    done = command("inspect", recipe, "--format", "svg", "-o", "graph.svg")
    assert (done.code, done.out) == (0, "")
    drawing = ET.parse("graph.svg").getroot()
    texts = {e.text for e in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"x", "w", "h = x @ w", "p = h.tanh()"} <= texts


def test_dot(command: Command, recipe: Path) -> None:
    out = command("inspect", recipe, "--format", "dot").out
    assert out.startswith('digraph "forward" {\n')
    assert out.rstrip().endswith("}")
    assert out.count(" -> ") == 5


def test_a_scalar_is_drawn(command: Command, tmp_path: Path) -> None:
    source = "from engine import Value\n\na = Value(2.0, label='a')\nloss = (a * 3).tanh()\n"
    (tmp_path / "scalar.py").write_text(source, encoding="utf-8")
    done = command("inspect", "scalar.py:loss", "--format", "dot")
    assert done.code == 0
    assert "tanh" in done.out
    assert command("inspect", "scalar.py:loss").code == 2


@pytest.mark.parametrize("form", ["svg", "dot"])
def test_a_drawing_is_of_the_whole(command: Command, form: str) -> None:
    done = command("inspect", "mlp", "hpreact", "--format", form)
    assert done.code == 2
    assert "leave out the NODE 'hpreact'" in done.err


def test_a_file_that_cannot_be_written(command: Command, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = command("inspect", recipe, "--format", "html", "--out", "file/page.html")
    assert done.code == 2
    assert "cannot write file/page.html" in done.err
    assert (tmp_path / "file").read_text(encoding="utf-8") == ""


def test_an_unknown_format(command: Command) -> None:
    assert command("inspect", "mlp", "--format", "pdf").code == 2


def test_markdown(command: Command, recipe: Path) -> None:
    done = command("inspect", recipe, "h", "--format", "markdown")
    assert done.out.startswith("### `h`\n")
    node, closed = done.out.split("### `dh`, the cotangent of `h`\n")
    assert node.count("```math") == 3
    assert closed.startswith("\n**1.** Chain rule: `h` is read by `p`:\n\n```math\n")
    assert closed.endswith("\n```python\ndh = torch.ops.aten.tanh_backward(p * (2 * grad_out / (n0 * n2)), p)\n```\n")
    command("build", recipe, "--out", "emitted")
    whole = command("inspect", "recipe.py", "--format", "markdown").out
    assert whole.splitlines()[2:] == (recipe.parent / "emitted" / "derivation.md").read_text().splitlines()[2:]


def test_an_unknown_node(command: Command) -> None:
    done = command("inspect", "mlp", "hpreac")
    assert done.code == 2
    assert "mlp has no node 'hpreac'. Did you mean 'hpreact'?" in done.err


def test_an_unknown_target(command: Command) -> None:
    done = command("inspect", "mpl")
    assert done.code == 2
    assert "Did you mean 'mlp'?" in done.err
