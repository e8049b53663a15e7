"""Drawings of expressions and graphs: what is in them, where it is, and that no text can break them."""

import re
from xml.etree import ElementTree as ET

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.draw import to_dot, to_svg
from engine.draw.layers import ROW_GAP, layered
from engine.errors import InputError
from engine.trace import trace
from engine.value import Value

SVG = "{http://www.w3.org/2000/svg}"


def small() -> Value:
    a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    c = a * b + a
    c.label = "c"
    c.backward()
    return c


def texts(svg: str) -> list[str]:
    return [str(e.text) for e in ET.fromstring(svg).iter(f"{SVG}text")]


def test_dot_of_a_value() -> None:
    lines = to_dot(small()).splitlines()
    assert lines[0] == 'digraph "c" {'
    assert [re.findall('label="(.*?)"', line)[0] for line in lines if "label" in line] == [
        r"a\ndata 2\ngrad -2",
        r"b\ndata -3\ngrad 2",
        r"*\ndata -6\ngrad 1",
        r"c: +\ndata -4\ngrad 1",
    ]
    assert [line.strip() for line in lines if "->" in line] == ["n0 -> n2", "n1 -> n2", "n2 -> n3", "n0 -> n3"]


def test_svg_of_a_value() -> None:
    svg = to_svg(small())
    assert texts(svg)[:3] == ["a", "data 2", "grad -2"]
    assert texts(svg)[-3:] == ["c: +", "data -4", "grad 1"]
    assert svg.count("marker-end") == 4


def test_a_graph_is_drawn_with_its_torch_calls_and_shapes() -> None:
    def forward(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(x @ w)
        return h.sum()

    graph = trace(forward, torch.ones(2, 3), torch.ones(3, 4))
    shown = texts(to_svg(graph))
    assert {"x", "w", "h_matmul = x @ w", "h = torch.tanh(h_matmul)", "out = h.sum()", "float32 ()"} <= set(shown)
    assert "h = torch.tanh(h_matmul)" in to_dot(graph)


def test_a_single_value_is_a_drawing() -> None:
    assert texts(to_svg(Value(1.0))) == ["data 1", "grad 0"]
    assert "->" not in to_dot(Value(1.0))


def test_of_a_large_expression_the_end_is_drawn() -> None:
    x = Value(1.0, label="x")
    v = x
    for _ in range(20_000):
        v = v + x
    assert to_dot(v).count("label") == 251
    assert "19,751 more" in to_dot(v)
    assert "19,751 more" in texts(to_svg(v))
    assert to_dot(v, limit=3).count("->") == 4
    with pytest.raises(InputError, match="limit"):
        to_svg(v, limit=0)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_labels_are_text_and_nothing_else(label: str) -> None:
    v = Value(1.0, label=label) + Value(2.0, label='"]; evil [label="<b>')
    ET.fromstring(to_svg(v))
    for line in to_dot(v).splitlines()[3:5]:
        assert re.fullmatch(r'  n\d \[label="([^"\\]|\\.)*" style=filled fillcolor="#\w{6}"\]', line)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    count = draw(st.integers(1, 25))
    sizes = [(draw(st.floats(10, 90)), draw(st.floats(10, 60))) for _ in range(count)]
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda e: e[0] < e[1])
    edges = draw(st.lists(pairs, unique=True, max_size=40)) if count > 1 else []
    return sizes, edges


@given(layouts())
def test_boxes_do_not_overlap_and_arrows_point_right(
    drawing: tuple[list[tuple[float, float]], list[tuple[int, int]]],
) -> None:
    sizes, edges = drawing
    layout = layered(sizes, edges)
    boxes = [(x0, y - h / 2, x1, y + h / 2) for (x0, x1, y), (_, h) in zip(layout.places, sizes, strict=False)]
    for k, (left, top, right, bottom) in enumerate(boxes):
        assert -1e-6 <= left <= right <= layout.width + 1e-6
        assert -1e-6 <= top <= bottom <= layout.height + 1e-6
        for other_left, other_top, other_right, other_bottom in boxes[:k]:
            apart = right < other_left or other_right < left
            assert apart or bottom + ROW_GAP - 1e-6 <= other_top or other_bottom + ROW_GAP - 1e-6 <= top
    assert all(layout.places[a][1] < layout.places[b][0] for a, b in layout.edges)
    pieces: dict[int, set[int]] = {}
    for a, b in layout.edges:
        pieces.setdefault(a, set()).add(b)
    for a, b in edges:
        reached, ring = set[int](), {a}
        while ring:
            ring = {n for k in ring for n in pieces.get(k, ())}
            reached |= ring & set(range(len(sizes)))
            ring -= set(range(len(sizes)))
        assert b in reached
