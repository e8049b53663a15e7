"""Modules in, unchanged."""
