"""Data sets as records of a log: Complete Journey, and tables of one's own."""
