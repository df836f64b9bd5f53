"""The solver of linear classifiers, and the proof that a fit is near its optimum."""
