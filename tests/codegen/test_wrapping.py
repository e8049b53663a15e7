"""Long lines of emitted programs stand on several, and mean the same."""

import ast
import cProfile
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen.wrapping import broken, fitted

NAMES = st.sampled_from(["x", "h_centred", "logits_softmax", "dh_layer_norm"])
ATOMS = NAMES | st.sampled_from(["1", "-1", "1e-05", '"ab, c"', "None", "..."])


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions made of smaller ones."""
    pair = st.tuples(inner, inner)
    operators = st.sampled_from(["+", "-", "*", "/", "@", "**", "==", "<", "|"])
    return st.one_of(
        st.tuples(pair, operators).map(lambda t: f"({t[0][0]}) {t[1]} ({t[0][1]})"),
        st.tuples(pair, operators).map(lambda t: f"{t[0][0]} {t[1]} {t[0][1]}"),
        st.lists(inner, max_size=5).map(lambda items: f"torch.where({', '.join(items)})"),
        pair.map(lambda p: f"({p[0]}).sum({p[1]}, keepdim=True, out=({p[0]},))"),
        pair.map(lambda p: f"x[{p[0]}, : {p[1]}]"),
        pair.map(lambda p: f"[{p[0]} for i in {p[1]}]"),
        pair.map(lambda p: f'f(*{p[0]}, **{{"a b": {p[1]}}})'),
        pair.map(lambda p: f"(lambda x, y: {p[0]} if x else {p[1]})"),
        pair.map(lambda p: f"({p[0]} if not {p[1]} else -{p[0]})"),
    )


def parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


EXPRESSIONS = st.recursive(ATOMS, larger, max_leaves=12).filter(parses)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@given(EXPRESSIONS, st.sampled_from(["y = ", "a, b = ", "x += ", "return ", "", "z = y = "]))
def test_random_statements_mean_the_same(expression: str, start: str) -> None:
    line = f"    {start}{expression}  # why"
    out = broken(line, 40)
    function = "def f():\n{}\n"
    assert ast.dump(ast.parse(function.format(line))) == ast.dump(ast.parse(function.format("\n".join(out))))
    assert out[-1].endswith("  # why")


def test_what_can_be_broken_fits() -> None:
    a, b, c, d = "logits * weights", "hidden.sum(1, keepdim=True)", "torch.where(mask, inputs, targets)", "scale"
    line = f"    loss = ({a} - {b}) * {c} / ({d} + {d} * {d} * {d} + {d} * {d}).sqrt()"
    assert broken(line, 60) == [
        "    loss = (",
        "        (logits * weights - hidden.sum(1, keepdim=True))",
        "        * torch.where(mask, inputs, targets)",
        "        / (",
        "            scale + scale * scale * scale + scale * scale",
        "        ).sqrt()",
        "    )",
    ]


def test_calls_are_broken_at_their_commas() -> None:
    assert broken("f(first, second, third, axis=1)", 24) == ["f(", "    first, second,", "    third, axis=1,", ")"]
    assert broken("def f(first, second, third, axis=1):", 24) == [
        "def f(",
        "    first, second,",
        "    third, axis=1,",
        "):",
    ]


def test_names_that_are_deleted_stand_in_brackets() -> None:
    out = broken("    del first, second, third, fourth", 28)
    assert out == ["    del (", "        first, second,", "        third, fourth,", "    )"]
    values: dict[str, int] = dict.fromkeys(("first", "second", "third", "fourth"), 0)
    exec("\n".join(line[4:] for line in out), values)
    assert "first" not in values
    assert "fourth" not in values


def test_strings_and_blocks_stay_as_they_are() -> None:
    text = '"""A text that is long, and has x = a + b in it."""\nif a_long_name_of_a_thing == 1:\n    y = 1\n'
    assert fitted(text, 20) == text


@pytest.mark.parametrize("path", sorted(Path("generated").glob("*/*.py")), ids=str)
def test_no_line_of_a_committed_program_is_long(path: Path) -> None:
    long = [line for line in path.read_text().splitlines() if len(line) > 120]
    assert [line for line in long if not line.lstrip().startswith("# ")] == []


def test_what_is_nested_or_long_without_end_is_left_in_time() -> None:
    """Deep inside nothing is broken, and a sum of many terms is looked through once for all of them."""
    deep = "x"
    for _ in range(90):
        deep = f"({deep} * 0.9).sin()"
    wide = " + ".join(f"a{k} * b" for k in range(2_000))
    for line in (f"y = {deep}", f"y = {wide}"):
        profile = cProfile.Profile()
        out = profile.runcall(broken, line)
        assert re.sub(r"[\s()]", "", "".join(out)) == re.sub(r"[\s()]", "", line)
        calls = sum(entry.callcount for entry in profile.getstats())
        assert calls < 400 * len(line)
