"""Whether what was shown is taken: rows of exposures, models of them, measures."""
