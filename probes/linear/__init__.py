"""Owns the linear probes of a run."""
