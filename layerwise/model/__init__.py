"""The network: blocks, auxiliary classifiers, shapes, initial weights, and what they count."""
