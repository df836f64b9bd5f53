"""Owns what probes leave: rows, single predictions, statistics, comparisons, and the table on the terminal."""
