"""Owns what a run will cost: memory, seconds, and the table of --dry-run."""
