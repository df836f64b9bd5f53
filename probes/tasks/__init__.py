"""The labels that a probe is fitted to: classes, control tasks, other properties of the images."""
