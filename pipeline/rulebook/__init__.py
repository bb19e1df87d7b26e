"""Reads a `rules/` folder, checks all of it, and hands the stages one immutable Rulebook."""
