"""What a gate says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether a gate lets a plan pass, and why not."""

    passed: bool
    reason: str = ""
    judged: bool = True
    """Whether there was anything to tell it by."""


__all__ = ["Verdict"]
