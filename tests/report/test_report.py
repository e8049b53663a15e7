"""The HTML report: what is in the page, that it needs no network, and how headless Chromium renders it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
import sympy as sp
import torch

import codegen
from codegen.report import report_html
from codegen.report.mathml import MathML
from engine.notation import Delta, Index, Sigma, Where, base, size_symbol
from engine.notation import Less as Below

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)
VOID = {"meta", "input", "br", "path", "rect", "mspace"}


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


def test_the_page_stands_alone(page: str) -> None:
    for tag, attributes in elements(page):
        assert tag not in ("script", "link", "img", "iframe")
        target = attributes.get("href") or ""
        assert target == "" or target.startswith("#")
    assert "url(http" not in page
    assert "a &lt;classifier&gt;" in page


def test_every_node_of_the_picture_leads_to_its_section(page: str) -> None:
    found = elements(page)
    ids = {a["id"] for _, a in found if "id" in a}
    links = [a["href"] for t, a in found if t == "a"]
    assert len(links) > 8
    assert all(str(link).removeprefix("#") in ids for link in links)
    for name in ("x", "w", "logits", "e", "p"):
        assert f"node-{name}" in ids


def test_a_section_tells_everything(page: str) -> None:
    section = page[page.index('id="node-logits"') :].split("</section>", maxsplit=1)[0]
    for heading in ("Forward", "Definition", "Path through", "Cotangent by the chain rule", "Closed form", "Emitted"):
        assert heading in section
    assert section.count("<math") >= 4
    assert "dlogits[torch.arange(n0), y] -= grad_out / n0" in section
    assert "Checked in float32" in page
    assert '<p class="check">ok: ' in page


def test_the_chain_leads_to_the_closed_form(page: str) -> None:
    part = page[page.index("From the chain to the closed form") :]
    assert "By the chain rule" in part
    assert "definition of p" in part
    assert "<msub><mi>δ</mi>" in part


def test_steps_mode_has_a_page_too() -> None:
    x = torch.randn(3, 4)
    page = report_html(codegen.generate(lambda x: x.tanh().sum(), x, mode="steps"), "steps")
    assert "From the chain" not in page
    assert "Emitted, one statement per node" in page


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        (lambda a, i, n: a[i] / n, ("<mfrac>", "<msub><mi>a</mi>")),
        (lambda a, i, n: sp.sqrt(a[i]), ("<msqrt>",)),
        (lambda a, i, n: Sigma(a[i] + 1, sp.Tuple(i, n)), ("<munder><mo>∑</mo>", "<mo>(</mo>")),
        (lambda a, i, n: Delta(i, n), ("<mi>δ</mi>",)),
        (lambda a, i, n: Where(Below(a[i], 1), a[i], 2), ("<mtable", "<mtext>else</mtext>")),
        (lambda a, i, n: sp.exp(-a[i]) ** 2, ("<msup><mi>e</mi>",)),
        (lambda a, i, n: 1 - sp.tanh(a[i]) ** 2, ("<mi>tanh</mi>", "<msup>")),
        (lambda a, i, n: sp.Rational(1, 3) * a[i], ("<mn>3</mn>",)),
        (lambda a, i, n: sp.Rational(4471500000000001, 10**17) * a[i], ("<mn>0.044715</mn>",)),
    ],
)
def test_mathml(expression: Any, parts: tuple[str, ...]) -> None:
    markup = MathML().at(expression(base("a"), Index("i"), size_symbol("n")), 1)
    elements(markup)
    for part in parts:
        assert part in markup


def rendered(page: str, folder: Path, size: str) -> tuple[str, Path]:
    """The DOM after layout, and a picture."""
    file, picture = folder / "page.html", folder / "page.png"
    plain = folder / "plain.html"
    file.write_text(page.replace("</body>", MEASURE), encoding="utf-8")
    plain.write_text(page, encoding="utf-8")
    url = file.as_uri()
    profile = f"--user-data-dir={folder / 'profile'}"
    common = [str(CHROMIUM), *FLAGS, profile, f"--window-size={size}", "--virtual-time-budget=3000"]
    dom = subprocess.run([*common, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True).stdout
    subprocess.run([*common, f"--screenshot={picture}", plain.as_uri()], capture_output=True, timeout=120, check=True)
    return dom, picture


MEASURE = """<script>
function measure() {
const shown = [...document.querySelectorAll('.nodes .node')].filter(n => n.offsetHeight > 0).map(n => n.id);
const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
const math = [...document.querySelectorAll('.nodes math')].filter(m => m.getBoundingClientRect().height > 8).length;
return {shown, wide, math};
}
addEventListener('load', () => {
  const before = measure();
  const link = document.querySelector('.graph a[href="#node-logits"]');
  link.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}));
  setTimeout(() => { document.title = JSON.stringify([before, measure()]); }, 200);
});
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("size", ["1280,900", "500,900"])
def test_in_chromium(page: str, tmp_path: Path, size: str) -> None:
    dom, picture = rendered(page, tmp_path, size)
    (title,) = re.findall(r"<title>(\[.*?\])</title>", dom)
    before, after = json.loads(title)
    assert before["shown"] == ["node-out"]
    assert after["shown"] == ["node-logits"]
    assert not before["wide"]
    assert not after["wide"]
    assert after["math"] >= 4
    assert picture.stat().st_size > 10_000
