"""Owns the CNN-p probes of a run."""
