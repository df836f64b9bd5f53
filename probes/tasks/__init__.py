"""Owns what a probe is asked: the classes, control tasks, other properties."""
