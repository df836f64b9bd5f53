"""The commands of layerwise: what they take and print; the work is done elsewhere."""
