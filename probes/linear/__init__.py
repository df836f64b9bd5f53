"""The linear probes of a run."""
