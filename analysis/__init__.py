"""Turn rows of probe results into tidy tables of statistics. Nothing here draws or trains."""
