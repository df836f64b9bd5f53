"""Owns the words of the commands of figures."""
