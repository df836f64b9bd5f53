"""Probes without training: nearest neighbours (knn) and nearest class mean (ncm)."""
