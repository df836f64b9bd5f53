"""The figures, each with its caption."""
