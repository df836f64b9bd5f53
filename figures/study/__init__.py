"""Owns the study: networks, probes, figures and tables by one command."""
