"""A check's report as a table for the terminal."""

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from codegen.check import Report
    from codegen.judge import Row

COLUMNS = ("exact", "close", "max abs", "max rel", "elementwise", "error", "autograd's")


def report_table(report: "Report") -> Table:
    """One line per gradient. A mismatch is red, and says what is wrong below its line."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("gradient of", no_wrap=True)
    for title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(*_cells(row), style="" if row.ok else "red")
        if row.note:
            table.add_row(Text(f"  {row.note}", style="" if row.ok else "red"))
    return table


def _cells(row: "Row") -> list[str]:
    yes = ("no", "yes")
    measures = [_number(x) for x in (row.absolute, row.relative, row.elementwise, row.error, row.autograd_error)]
    return [row.name, yes[row.exact], yes[row.allclose], *measures]


def _number(x: float | None) -> str:
    return "" if x is None else "0" if x == 0 else f"{x:.1e}"


def summary(report: "Report") -> str:
    """What a report comes to, on one line."""
    close = sum(r.allclose for r in report.rows)
    count = len(report.rows)
    forward = sum(r.exact for r in report.values)
    bad = "" if report.ok else f", {_counted(len(report.failures), 'mismatch', 'mismatches')}"
    exact = f"{report.exact_count} gradients exact, {close} of {count} close"
    return f"{exact}; forward: {forward} of {len(report.values)} exact{bad}"


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
