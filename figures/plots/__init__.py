"""Owns the figures and their captions."""
