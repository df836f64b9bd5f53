"""A study, or run files, as one page of HTML that needs nothing else: figures, tables, origins."""
