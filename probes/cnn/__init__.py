"""The CNN-p probes of a run."""
