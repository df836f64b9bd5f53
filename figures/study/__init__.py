"""The study: its networks, their training and probing, what it costs, what it shows."""
