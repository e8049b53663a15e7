"""Closed forms worked out: the states between the chain of local derivatives and the closed form, one rule at a time."""

from codegen.worked.told import ToldStage, told
from codegen.worked.walk import Stage, walked

__all__ = ["Stage", "ToldStage", "told", "walked"]
