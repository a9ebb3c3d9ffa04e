"""Models that rank the whole catalogue: baselines, sequence models, and the system's own."""
