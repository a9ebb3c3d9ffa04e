"""How good the answers are: metrics, baselines, and backtests that replay the log."""
