"""Training: problems, stages, the one loop, the frozen blocks below it, checkpoints, and a run from start to file."""
