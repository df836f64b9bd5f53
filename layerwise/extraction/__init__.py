"""Owns networks built elsewhere, and arrays, as run files."""
