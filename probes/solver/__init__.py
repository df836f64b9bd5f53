"""Owns certified linear classifiers: the solver and its proof."""
