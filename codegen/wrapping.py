"""Long lines of Python broken as a person would: inside of brackets, and there before operators or after commas.

What stands on one line and does not fit is broken where it binds least: `x = a + f(b)` before the `+`, in parentheses of its own,
`x = f(a, b)` at the commas of the call. A part that still does not fit is broken again. The program is the same: only white
space changes, parentheses around a whole expression, and a comma before a bracket that closes.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import NamedTuple

WIDTH = 120
STEP = 4
WEAKEST = tuple(
    tuple(level.split()) for level in ("for", "if else", "or", "and", "== != < <= > >=", "|", "&", "+ -", "* / // % @")
)
"""Operators that a line is broken before, from those that bind least."""
OPERATORS = {o for level in WEAKEST for o in level} | {"**"}
COMPARISONS = ("==", "!=", "<=", ">=")
OPENING, CLOSING = "([{", ")]}"
WORD = re.compile(
    r"""\s*(?P<token>
    [rbfRBF]{0,2}(?:\"{3}.*?\"{3}|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')  # a string
    |\#.*  # a comment
    |(?:\d[\d_.]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?|\w+  # a number, a name
    |\*\*=?|//=?|->|:=|\.{3}|[-+*/%@&|^=!<>]=|<<|>>|\S  # an operator, a bracket
    )""",
    re.VERBOSE,
)
"""A token of one line of Python, as far as emitted code goes."""
HIDDEN = re.compile(r"""\"{3}[\s\S]*?\"{3}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\#.*""")
"""What brackets do not count in: strings and comments."""
COMPOUND = ("if", "for", "while", "with", "class", "elif", "else", "try", "except", "assert", "import", "from", "@")
"""How lines begin that are not broken: templates lay those out."""


def in_double_quotes(line: str) -> str:
    """A statement with its words in double quotes, where they have none inside: `padding="same"`."""
    if "'" not in line:
        return line
    return HIDDEN.sub(lambda m: m[0].replace("'", '"') if m[0][0] == "'" and not {*m[0]} & {*'"\\'} else m[0], line)


class Token(NamedTuple):
    """A token of a line: its text, where it starts and ends, and how many brackets are open before it."""

    text: str
    start: int
    end: int
    depth: int
    binary: bool
    """Whether it stands between two operands."""


class Piece:
    """A part of a line between brackets, commas or operators, with its tokens."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()

    @cached_property
    def tokens(self) -> list[Token]:
        """The tokens with the depth of their brackets, relative to the piece."""
        out: list[Token] = []
        depth = 0
        for word in WORD.finditer(self.text):
            text = word["token"]
            if text.startswith("#"):
                break
            if text in CLOSING:
                depth -= 1
            operand = (
                bool(out) and not out[-1].binary and (out[-1].text[-1].isalnum() or out[-1].text[-1] in "_)]}\"'.")
            )
            binary = text in OPERATORS and (operand or text.isalpha())
            out.append(Token(text, word.start("token"), word.end(), depth, binary))
            if text in OPENING:
                depth += 1
        return out

    @cached_property
    def is_lambda(self) -> bool:
        """Whether there is a function without a name in it, outside of brackets: that stays on its line."""
        return any(t.text == "lambda" and t.depth == 0 for t in self.tokens)

    def commas(self) -> list[str]:
        """What its outermost commas separate; those of a lambda's arguments do not."""
        if self.is_lambda:
            return [self.text]
        cuts = [t for t in self.tokens if t.text == "," and t.depth == 0]
        starts, ends = [0, *[t.end for t in cuts]], [*[t.start for t in cuts], len(self.text)]
        return [p for p in (self.text[a:b].strip() for a, b in zip(starts, ends, strict=True)) if p]

    def operands(self) -> list[str]:
        """What its outermost operators that bind least separate, each with the operator before it; itself alone if there are none."""
        outermost = [t for t in self.tokens if t.depth == 0 and t.binary and not self.is_lambda]
        for level in WEAKEST:
            cuts = [t.start for t in outermost if t.text in level]
            if cuts:
                return [self.text[a:b].strip() for a, b in zip([0, *cuts], [*cuts, len(self.text)], strict=True)]
        return [self.text]

    def last_bracket(self) -> tuple[int, int] | None:
        """Where the content of its last bracket begins and ends that holds something and is outermost."""
        opened = [t for t in self.tokens if t.text in tuple(OPENING) and t.depth == 0]
        closed = [t for t in self.tokens if t.text in tuple(CLOSING) and t.depth == 0]
        pairs = [(a.end, b.start) for a, b in zip(opened, closed, strict=True) if a.end < b.start]
        return max(pairs, key=lambda p: p[1] - p[0]) if pairs else None


def fitted(text: str, width: int = WIDTH) -> str:
    """A program in which every statement that stood on a line too long for it stands on several.

    Lines inside of strings and brackets, comments, and lines that open a block, other than a function's, stay as they are.
    """
    lines = text.split("\n")
    if all(len(line) <= width for line in lines):
        return text
    whole = statements(text)
    long = {k for k, line in enumerate(lines, 1) if len(line) > width and k in whole}
    return "\n".join(p for k, line in enumerate(lines, 1) for p in (broken(line, width) if k in long else [line]))


def statements(text: str) -> set[int]:
    """Numbers of the lines that are one statement each, or the whole of a block's first line."""
    plain = HIDDEN.sub(lambda m: "" if m[0][0] == "#" else "(" + "\n" * m[0].count("\n") + ")", text)
    out: set[int] = set()
    depth = 0
    for k, line in enumerate(plain.split("\n"), 1):
        before = depth
        depth += sum(map(line.count, OPENING)) - sum(map(line.count, CLOSING))
        if line.strip() and not before and not depth:
            out.add(k)
    return out


def broken(line: str, width: int = WIDTH) -> list[str]:
    """A statement over several lines; as it is where it has no place to be broken at."""
    indent = len(line) - len(line.lstrip())
    code, comment = apart(line.strip())
    words = Piece(code).tokens
    if words[0].text == "def":
        return laid("def ", Piece(code[3:-1]), ":", indent, width)
    if words[0].text in COMPOUND or code.endswith(":"):
        return [line]
    out = laid(*assigned(code, words), "", indent, width) if len(code) + indent > width else [" " * indent + code]
    return [*out[:-1], f"{out[-1]}  {comment}"] if comment else out


def apart(code: str) -> tuple[str, str]:
    """A statement and the comment at its end."""
    at = next((w.start("token") for w in WORD.finditer(code) if w["token"].startswith("#")), len(code))
    return code[:at].rstrip(), code[at:]


def assigned(code: str, words: list[Token]) -> tuple[str, Piece]:
    """`x = `, `return ` or `del ` and what follows; nothing and the whole for other statements."""
    if words[0].text in ("return", "del"):
        return f"{words[0].text} ", Piece(code[words[0].end :])
    ends = [t.end for t in words if t.depth == 0 and t.text.endswith("=") and t.text not in COMPARISONS]
    return (code[: ends[-1]] + " ", Piece(code[ends[-1] :])) if ends else ("", Piece(code))


def named(item: str) -> tuple[str, Piece]:
    """`dim=`, `*` or `"key": ` of an item between commas, and its value."""
    whole = Piece(item)
    if item.isidentifier():
        return "", whole
    stars = next((s for s in ("**", "*") if item.startswith(s)), "")
    at = next((t.end for t in whole.tokens if t.depth == 0 and t.text in ("=", ":")), len(stars))
    space = " " * item[at:].startswith(" ")
    return ("", whole) if whole.is_lambda or not at else (item[:at] + space, Piece(item[at:]))


def laid(head: str, piece: Piece, tail: str, indent: int, width: int) -> list[str]:
    """`head`, a piece and `tail` on one line, or on several between brackets."""
    room = width - indent
    if (
        len(head) + len(piece.text) + len(tail) <= room or room < width // 2
    ):  # deep inside, a line is no longer the worse
        return [f"{' ' * indent}{head}{piece.text}{tail}"]
    outer, inner = " " * indent, indent + STEP
    items = piece.commas()
    if len(items) > 1 or piece.text.endswith(","):
        return [f"{outer}{head}(", *listed(piece, inner, width), f"{outer}){tail}"]
    terms = piece.operands()
    if len(terms) > 1:
        own = [line for k, t in enumerate(terms) for line in term(t, inner, width, first=k == 0)]
        return [f"{outer}{head}(", *own, f"{outer}){tail}"]
    place = piece.last_bracket()
    if place is None:
        return [f"{outer}{head}{piece.text}{tail}"]
    before, content, after = piece.text[: place[0]], piece.text[place[0] : place[1]], piece.text[place[1] :]
    return [f"{outer}{head}{before}", *within(content, inner, width), f"{outer}{after}{tail}"]


def within(content: str, indent: int, width: int) -> list[str]:
    """What stands between two brackets, on lines of its own."""
    piece = Piece(content)
    items = piece.commas()
    if len(items) > 1 or piece.text.endswith(","):
        return listed(piece, indent, width)
    head, piece = named(piece.text)
    if head:
        return laid(head, piece, "", indent, width)
    terms = piece.operands()
    if len(piece.text) + indent <= width or len(terms) == 1:
        return laid("", piece, "", indent, width)
    return [line for k, t in enumerate(terms) for line in term(t, indent, width, first=k == 0)]


def term(text: str, indent: int, width: int, first: bool) -> list[str]:
    """An operand with the operator before it."""
    if first:
        return laid("", Piece(text), "", indent, width)
    operator, _, rest = text.partition(" ")
    if operator == "for":
        return [" " * indent + text]
    return laid(f"{operator} ", Piece(rest), "", indent, width)


def listed(piece: Piece, indent: int, width: int) -> list[str]:
    """Items with commas: on one line if they fit, many on a line where all are short, else each on its own."""
    items = piece.commas()
    if len(piece.text) + indent <= width:
        return [" " * indent + piece.text]
    if max(map(len, items)) > width // 3:
        return [line for i in items for line in laid(*named(i), ",", indent, width)]
    rows: list[str] = []
    for i in items:
        if rows and indent + len(rows[-1]) + len(i) + 2 <= width:
            rows[-1] += f" {i},"
        else:
            rows.append(f"{i},")
    return [" " * indent + r for r in rows]
