"""Fit probes to the frozen depths of a run and keep every number as a row of run.probes.csv."""
