"""Operations and elements moved by closed programs, against the best hand-derived versions of the same forwards.

Run from the repository's root: `python benchmarks/forms.py [NAME...]`. Every tensor operation that reaches the dispatcher is
counted with the elements it reads and writes; views are free. A ratio above 1.25 is marked.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import codegen
from tests.closed.forms import FORMS, Draw
from tests.closed.forms.counter import measured

LIMIT = 1.25


def main(names: list[str]) -> None:
    """Print the table."""
    print(f"{'form':<28} {'ops':>5} {'hand':>5} {'elements':>10} {'hand':>10} {'ratio':>6}")
    over = 0
    for form in FORMS:
        if names and not any(n in form.name for n in names):
            continue
        program = codegen.generate(form.forward, *form.inputs(Draw(0), form.large), wrt=form.wrt or None)
        ours, hand = measured(form, program)
        if hand is None:
            print(f"{form.name:<28} {ours.ops:>5} {'':>5} {ours.elements:>10}")
            continue
        ratio = ours.elements / hand.elements
        over += ratio > LIMIT
        mark = " *" if ratio > LIMIT else ""
        print(
            f"{form.name:<28} {ours.ops:>5} {hand.ops:>5} {ours.elements:>10} {hand.elements:>10} {ratio:>6.2f}{mark}"
        )
    print(f"{over} above {LIMIT}")


if __name__ == "__main__":
    main(sys.argv[1:])
