"""Owns what all figures share: style, layout, the accuracy axis."""
