"""What features [n, d] of a depth are like, apart from how well they are decoded: similarity, dimension, classes."""
