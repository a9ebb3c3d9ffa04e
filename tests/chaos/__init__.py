"""Kills at random moments: afterwards a run must be what it would have been undisturbed."""
