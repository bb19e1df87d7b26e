"""Codecs that need no script: one file each. A converter's YAML names one by `codec:`."""
