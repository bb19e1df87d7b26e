"""Offline work on rules: run their examples and tests, try a converter, post sample uplinks."""
