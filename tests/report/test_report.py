"""The HTML report: what is in the page, that it needs no network, that its mathematics is MathML."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import sympy as sp
import torch

import codegen
from codegen.build import HOME, closed_program, default_targets, program_of
from codegen.inputs import example_inputs
from codegen.report import report_html
from codegen.report.mathml import MathML
from codegen.targets import load_target
from engine.notation import Delta, Equal, Index, Sigma, Where, base, canonical, size_symbol
from engine.notation import Less as Below
from tests.report.chromium import CHROMIUM, DESKTOP, PHONE, looked_at, screenshot

if TYPE_CHECKING:
    from pathlib import Path

VOID = {"meta", "input", "br", "path", "rect", "mspace"}
MATH = re.compile(r"<math.*?</math>", re.DOTALL)
XMLNS = {"http://www.w3.org/1998/Math/MathML", "http://www.w3.org/2000/svg"}
CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2}
NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"

TOLD = [n for n in default_targets() if (HOME / n / "derivation.md").stat().st_size < 35_000]
"""The bundled forwards of some twenty nodes; the larger ones are made of the same parts."""

_pages: dict[str, str] = {}


def page_of(name: str) -> str:
    """The page that `codegen inspect NAME --format html` writes."""
    if name not in _pages:
        target = load_target(name)
        inputs = tuple(example_inputs(target).values())
        program = program_of(target, name)
        closed = closed_program(program, name)
        _pages[name] = report_html(closed, name, *[codegen.check(p, *inputs) for p in (closed, program)])
    return _pages[name]


def classifier(x: Any, y: Any, w: Any) -> Any:
    logits = x @ w
    e = logits.exp()
    p = e / e.sum(1, keepdim=True)
    return -p[torch.arange(x.shape[0]), y].log().mean()


@pytest.fixture(scope="module")
def page() -> str:
    g = torch.Generator().manual_seed(0)
    inputs = [torch.randn(6, 4, generator=g), torch.randint(0, 3, (6,), generator=g), torch.randn(4, 3, generator=g)]
    program = codegen.generate(classifier, *inputs)
    return report_html(program, "a <classifier>", codegen.check(program, *inputs))


class Elements(HTMLParser):
    """Every element with its attributes, and whether all of them are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def elements(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(page)
    assert parser.open == []
    return parser.found


def panel(page: str, anchor: str) -> str:
    """One section of a page."""
    return page[page.index(f'id="{anchor}"') :].split("</section>", maxsplit=1)[0]


def test_what_is_said_is_escaped(page: str) -> None:
    assert "<classifier>" not in page
    assert "<h1>a &lt;classifier&gt;</h1>" in page


@pytest.mark.parametrize("name", TOLD)
def test_a_page_stands_alone(name: str) -> None:
    for tag, attributes in elements(page_of(name)):
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "form")
        for key, value in attributes.items():
            assert not key.startswith("on")
            assert key != "src"
            assert key != "href" or str(value).startswith("#")
            assert "//" not in (value or "") or (key == "xmlns" and value in XMLNS)
    (style,) = re.findall(r"<style>(.*?)</style>", page_of(name), re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("name", TOLD)
def test_every_link_leads_somewhere(name: str) -> None:
    found = elements(page_of(name))
    ids = [a["id"] for _, a in found if "id" in a]
    assert len(ids) == len(set(ids))
    links = {str(a["href"]).removeprefix("#") for t, a in found if t == "a"}
    assert links <= set(ids)
    assert {f"node-{n.name}" for n in program_of(load_target(name), name).graph.nodes} <= links & set(ids)


@pytest.mark.parametrize("name", TOLD)
def test_every_panel_has_every_part(name: str) -> None:
    program = program_of(load_target(name), name)
    told = page_of(name)
    for n in program.graph.nodes:
        text = panel(told, f"node-{n.name}")
        has_cotangent = n.name in program.derivation.cotangents
        wanted = {
            "<h4>Forward</h4>": not n.is_input,
            "<h4>Definition</h4>": n.definition is not None,
            "Cotangent by the chain rule": has_cotangent,
            "No gradient goes through this node.": not has_cotangent,
            "<h4>Emitted in steps.py</h4>": has_cotangent,
            "<code>steps.py</code> ok: ": has_cotangent,
        }
        for part, there in wanted.items():
            assert (part in text) == there, (n.name, part)
        parts = program.derivation.cotangents[n.name].parts if has_cotangent else ()
        assert text.count("Path through") >= len(parts)
        if n.is_input and has_cotangent:
            assert "<code>closed.py</code> ok: " in text
            assert "<h4>Emitted in closed.py</h4>" in text


@pytest.mark.parametrize("name", TOLD)
def test_the_closed_forms_are_told_state_by_state(name: str) -> None:
    program = closed_program(program_of(load_target(name), name), name)
    told = page_of(name)
    assert program.writer is not None
    for block in program.writer.backward.blocks:
        text = panel(told, f"closed-{block.name}")
        assert "<math" in text
    for proof in program.derivation.proofs:
        text = panel(told, f"closed-{proof.name}")
        changed = canonical(proof.naive) != canonical(proof.expr)
        assert text.count("<li>") >= (2 if changed and proof.cell else 1)
        assert text.count("<math") >= text.count("<li>")


@pytest.mark.parametrize("name", TOLD)
def test_the_mathematics_is_well_formed(name: str) -> None:
    formulas = MATH.findall(page_of(name))
    assert formulas
    for text in formulas:
        tree = ET.fromstring(text)
        for e in tree.iter():
            tag = e.tag.removeprefix(NAMESPACE)
            assert len(e) == CHILDREN.get(tag, len(e)), text
            assert not set(e.text or "") & set("\\_^{}$") or tag in ("mi", "mo"), text
            assert "\\" not in (e.text or "")


def test_a_section_tells_everything(page: str) -> None:
    section = panel(page, "node-logits")
    for heading in ("Forward", "Definition", "Path through", "Cotangent by the chain rule", "Closed form", "Trail"):
        assert heading in section
    assert section.count("<math") >= 4
    assert "dlogits[torch.arange(n0), y] -= grad_out / n0" in section
    assert "<code>closed.py</code> checked in float32" in page
    assert "<code>closed.py</code> ok: " in page


def test_the_chain_leads_to_the_closed_form(page: str) -> None:
    part = panel(page, "closed-dlogits")
    states = part.split("<li>")[1:]
    assert states[0].startswith("Chain rule: <code>logits</code> is read by")
    assert any("Definition of <code>p</code> solved for <code>e</code>" in s for s in states)
    assert "Common factors in front" in states[-1]
    assert "<msub><mi>δ</mi>" in states[-1]


def test_what_is_saved_is_listed_against_what_autograd_keeps(page: str) -> None:
    part = page[page.index('id="memory"') :]
    # p; e, its sum, the index and what it gathers
    assert "<code>closed.py</code> saves 18, autograd keeps 36" in part
    assert '<td><code>p</code></td><td>(n0, n2)</td><td class="count">18</td>' in part


def test_a_mismatch_is_shown() -> None:
    x = torch.randn(3, 4)
    program = codegen.generate(lambda x: (x * x).sum(), x)
    program.module.backward = lambda saved, grad_out=None: {"x": torch.ones(3, 4)}
    page = report_html(program, "wrong", codegen.check(program, x))
    assert 'class="check bad"' in page
    assert 'class="verdict bad"' in page


def test_steps_mode_has_a_page_too() -> None:
    x = torch.randn(3, 4)
    page = report_html(codegen.generate(lambda x: x.tanh().sum(), x, mode="steps"), "steps")
    assert 'id="closed"' not in page
    assert "Emitted in steps.py" in page
    elements(page)


def test_the_page_of_a_deep_stack_grows_with_its_depth_alone() -> None:
    def stack(x: Any, *weights: Any) -> Any:
        for w in weights:
            h = x @ w
            x = torch.tanh((h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt())
        return x.sum()

    pages: list[str] = []
    for depth in (6, 12, 24):
        inputs = [torch.randn(6, 3), *[torch.randn(3, 3) for _ in range(depth)]]
        pages.append(report_html(codegen.generate(stack, *inputs), "stack"))
    small, middle, large = map(len, pages)
    assert large - middle < 2.2 * (middle - small)
    assert pages[-1].count("By the same steps as") >= 20
    elements(pages[-1])


LETTERS: dict[str, str] = {
    "unicode": "größe = x * λ\n    ω = größe.tanh()\n    return ω.sum()",
    "helpers": "torch_ = x * λ\n    saved = torch_.tanh()\n    backward = saved * 2\n    grad_out = backward.exp()\n    return grad_out.sum()",
    "builtins": "sum = x * λ\n    list = sum.tanh()\n    return list.sum()",
    "template": "jinja_loop = x * λ\n    node = jinja_loop.tanh()\n    closed = node * 2\n    return closed.sum()",
}


@pytest.mark.parametrize("body", LETTERS.values(), ids=LETTERS.keys())
def test_hostile_names(body: str, tmp_path: Path) -> None:
    file = tmp_path / "{{ 7 * 7 }}.py"
    file.write_text(
        "import torch\n\n\ndef forward(x, λ):\n"
        '    """</script><script>alert(1)</script> {{ 7 * 7 }} {% raw %}"""\n'
        f"    {body}  # </code><b>{{{{ target }}}}\n\n\n"
        "def example_inputs(generator):\n    return {'x': torch.randn(3, 4), 'λ': torch.randn(4)}\n",
        encoding="utf-8",
    )
    target = load_target(str(file))
    program = program_of(target, str(file))
    page = report_html(closed_program(program, str(file)), str(file))
    elements(page)
    assert "<script" not in page
    assert "<b>" not in page
    assert "{{ 7 * 7 }}" in page
    for text in MATH.findall(page):
        ET.fromstring(text)


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        (lambda a, i, n: a[i] / n, ("<mfrac>", "<msub><mi>a</mi>")),
        (lambda a, i, n: sp.sqrt(a[i]), ("<msqrt>",)),
        (lambda a, i, n: Sigma(a[i] + 1, sp.Tuple(i, n)), ('<munder><mo movablelimits="false">∑</mo>', "<mo>(</mo>")),
        (lambda a, i, n: Sigma(a[i], sp.Tuple(i, n)) / n, ("<mfrac>", "<munder>")),
        (lambda a, i, n: Delta(i, n), ("<mi>δ</mi>",)),
        (lambda a, i, n: Equal(a[i], n), ("<mo>[</mo>", "<mo>=</mo>", "<mo>]</mo>")),
        (lambda a, i, n: Where(Below(a[i], 1), a[i], 2), ("<mtable", "<mtext>else</mtext>")),
        (lambda a, i, n: Where(1 - a[i], 2, a[i]), ("<mtext>if not\N{NO-BREAK SPACE}</mtext><msub>",)),
        (lambda a, i, n: sp.exp(-a[i]) ** 2, ("<msup><mi>e</mi>",)),
        (lambda a, i, n: 1 - sp.tanh(a[i]) ** 2, ("<mi>tanh</mi>", "<msup>")),
        (lambda a, i, n: sp.Rational(1, 3) * a[i], ("<mn>3</mn>",)),
        (lambda a, i, n: a[i] + sp.Rational(1, 10**5), ("<msup><mn>10</mn><mn>-5</mn></msup>",)),
        (lambda a, i, n: sp.Rational(4471500000000001, 10**17) * a[i], ("<mn>0.044715</mn>",)),
    ],
)
def test_mathml(expression: Any, parts: tuple[str, ...]) -> None:
    markup = MathML().at(expression(base("a"), Index("i"), size_symbol("n")), 1)
    ET.fromstring(markup)
    for part in parts:
        assert part in markup


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], dict[str, Any]]:
    """How Chromium renders the pages of all bundled forwards."""
    first = {n: program_of(load_target(n), n).graph.inputs[0] for n in TOLD}
    pages = {n: (page_of(n), f"node-{first[n]}") for n in TOLD}
    return looked_at(pages, tmp_path_factory.mktemp("chromium"))


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", TOLD)
def test_in_chromium(name: str, width: int, looks: dict[tuple[str, int], dict[str, Any]]) -> None:
    graph = program_of(load_target(name), name).graph
    look = looks[name, width]
    assert look["before"]["panels"] == [f"node-{graph.outputs[0]}"]
    assert look["focused"]
    assert look["after"]["panels"] == [f"node-{graph.inputs[0]}"]
    assert len(look["all"]["panels"]) == len(graph.nodes)
    assert [look[when]["overflow"] for when in ("before", "after", "all")] == [0, 0, 0]
    assert look["formulas"] == len(MATH.findall(page_of(name)))
    assert look["bad"] == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_picture(page: str, tmp_path: Path) -> None:
    assert screenshot(page, tmp_path, DESKTOP, 900).stat().st_size > 10_000
