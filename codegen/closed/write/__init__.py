"""Closed regions as the text of a file: statements, names, saved tensors, derivation."""
