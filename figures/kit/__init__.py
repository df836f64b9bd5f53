"""What all figures share: style, panels, legend, the accuracy axis."""
