"""Owns the probes without training: knn and ncm."""
