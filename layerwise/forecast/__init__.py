"""The cost of a run in advance: memory, seconds, and the table of --dry-run."""
