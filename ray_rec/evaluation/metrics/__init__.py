"""Numbers from ranks, lists and logged rewards, with intervals; worked out without any model."""
