"""`codegen inspect`: a node or the whole program, as text, LaTeX and Markdown."""

from pathlib import Path

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


def test_latex(command: Command, recipe: Path) -> None:
    done = command("inspect", recipe, "h", "--format", "latex")
    assert done.out.startswith("\\begin{align*}\n")
    assert r"h_{i,j} &= \sum_{k} w_{k,j} x_{i,k}" in done.out
    assert r"\mathrm{dh}_{i,j} &= \left(1 - p_{i,j}^{2}\right) \mathrm{dp}_{i,j}" in done.out
    assert done.out.count("{") == done.out.count("}")
    assert command("inspect", recipe, "--format", "latex").code == 0


def test_markdown(command: Command, recipe: Path) -> None:
    done = command("inspect", recipe, "h", "--format", "markdown")
    assert done.out.startswith("### `h`\n")
    assert done.out.count("```math") == 3
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
