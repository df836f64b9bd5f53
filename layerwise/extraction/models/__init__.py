"""Networks built elsewhere: by name or from a factory, and their weights."""
