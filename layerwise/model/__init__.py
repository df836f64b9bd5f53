"""Owns the network: its blocks, auxiliary classifiers, shapes, initial weights, and what they count."""
