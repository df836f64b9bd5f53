"""Owns training: problems, stages, the one loop, the frozen prefix, checkpoints, and a run from start to file."""
