"""Networks built elsewhere, and arrays, as run files."""
