"""Workloads and variants of `codegen bench`: everything alternates in one process, and ratios are what is reported."""
