"""Draw tidy tables as figures fit for a paper. Nothing here computes a statistic."""
