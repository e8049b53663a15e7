"""The HTML report: one page per target that needs no network, its mathematics in MathML, its graph in SVG."""

from codegen.report.page import report_html

__all__ = ["report_html"]
