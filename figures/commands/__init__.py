"""The commands of figures: their options and their output."""
