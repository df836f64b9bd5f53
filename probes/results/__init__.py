"""The results of probes: rows, single predictions, statistics, comparisons, and the table on the terminal."""
