"""Answering without Ray: engine, policy, followers, and the replica that holds them together.

Import from the modules: `replica.Replica`, `engine.Engine`, `answers.Request`, …
"""
