"""Dialects: one file a network server or platform, both ways. Pure."""
