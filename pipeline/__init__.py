"""Funicular: ingest → convert → route → downlink → sink. The map is README.md beside this file."""

__version__ = "0.1.0"
