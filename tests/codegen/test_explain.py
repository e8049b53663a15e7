"""What is told of a derivation: complete, true to the emitted file, and in mathematics that parses."""

import re
import warnings

import pytest
import torch
from matplotlib.mathtext import MathTextParser

from codegen import generate
from codegen.build import default_targets
from codegen.derivation_md import derivation_markdown, node_markdown
from codegen.explain import explanations
from codegen.inputs import example_inputs
from codegen.program import Program
from codegen.targets import load_target

_programs: dict[str, Program] = {}


def program_of(name: str) -> Program:
    if name not in _programs:
        target = load_target(name)
        _programs[name] = generate(target.forward, *example_inputs(target).values(), mode="steps", name=name)
    return _programs[name]


@pytest.mark.parametrize("name", default_targets())
def test_every_node_is_explained(name: str) -> None:
    program = program_of(name)
    told = explanations(program.derivation)
    assert {*told} == {n.name for n in program.graph.nodes}
    for e in told.values():
        node = program.graph[e.name]
        assert bool(e.forward) == (not node.is_input)
        assert (e.cotangent is not None) == (e.name in program.derivation.cotangents)
        if e.cotangent is not None:
            assert e.statements
            seeded = e.name in program.graph.outputs
            assert e.paths or seeded or "zeros_like" in e.statements[0]


@pytest.mark.parametrize("name", default_targets())
def test_the_statements_are_those_of_the_emitted_file(name: str) -> None:
    program = program_of(name)
    lines = {line.strip() for line in program.source.splitlines()}
    for e in explanations(program.derivation).values():
        assert {s.strip() for s in e.statements} <= lines


@pytest.mark.parametrize("name", default_targets())
def test_the_document_has_every_part_of_every_node(name: str) -> None:
    program = program_of(name)
    text = derivation_markdown(program.derivation, name)
    for e in explanations(program.derivation).values():
        if e.name not in program.graph.inputs or e.cotangent is not None:
            assert f"### `{e.name}`" in text
        for part in (e.definition, e.cotangent, *(p.derivative for p in e.paths)):
            assert part is None or f"```math\n{part.latex}\n```" in text
        if e.forward:
            assert f"```python\n{e.forward}\n```" in text
    for i in program.graph.inputs:
        assert re.search(rf"^- `{i}`: \w+ `\(.*\)`$", text, re.MULTILINE)
    assert text.count("```") % 2 == 0
    assert "\n\n\n" not in text
    assert not re.search(r"(?<![\w\\])_(cot|out|\d)\b|Index\(|Dummy", text)  # no placeholder is left


def plain(latex: str) -> str:
    """The few commands that mathtext lacks, as ones that it has."""
    for old, new in ((r"\bmod", r"\;"), (r"\partial\,", r"\partial"), (r"\begin{cases}", ""), (r"\end{cases}", "")):
        latex = latex.replace(old, new)
    return latex


def lettered(latex: str) -> str:
    """A formula with its upright names lettered in the order they come in, so that equal layers have equal formulas."""
    names = dict.fromkeys(re.findall(r"\\mathrm\{([^{}]*)\}", latex))
    letters = {name: chr(ord("A") + k % 26) + "\\_x" * (r"\_" in name) for k, name in enumerate(names)}
    return re.sub(r"\\mathrm\{([^{}]*)\}", lambda m: r"\mathrm{" + letters[m[1]] + "}", latex)


@pytest.mark.sampled("name")
@pytest.mark.parametrize("name", default_targets())
def test_the_mathematics_parses(name: str) -> None:
    parser = MathTextParser("path")
    told = explanations(program_of(name).derivation).values()
    parts = [part for e in told for part in (e.definition, e.cotangent, *(p.derivative for p in e.paths))]
    formulas = {lettered(plain(p.latex)) for p in parts if p is not None and "cases" not in p.latex}
    assert formulas
    for formula in sorted(formulas):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser.parse(f"${formula}$")


def test_one_node_of_the_mlp() -> None:
    told = explanations(program_of("mlp").derivation)
    h = told["hpreact_bn"]
    assert h.cotangent is not None
    assert h.cotangent.text == "dhpreact_bn[i,j] = (1 - h[i,j]^2) dh[i,j]"
    assert h.paths[0].derivative.text == "∂h[i,j]/∂hpreact_bn[i,j] = 1 - h[i,j]^2"
    assert told["C"].paths[0].scattered
    assert told["hpreact"].rules == ("fan-out: 3 paths add up",)
    assert told["x"].cotangent is None
    assert told["bnmeani"].shape.startswith("(1, ")
    text = node_markdown(h)
    assert text.startswith("### `hpreact_bn`\n\nNode, float32")
    assert "`hpreact_bn = (hpreact - bnmeani) / bnstdi * bnw + bnb`" in text
    assert text.count("```math") == 3
    assert text.count("```python") == 2


def test_names_with_underscores_and_digits() -> None:
    def forward(w_1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        _h_0 = w_1 * x2
        return _h_0.exp()

    program = generate(forward, torch.randn(3), torch.randn(3), mode="steps")
    text = derivation_markdown(program.derivation, "forward")
    assert r"\mathrm{w\_1}" in text
    assert r"\mathrm{x2}" in text
