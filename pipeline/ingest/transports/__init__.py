"""How messages come where they are not posted: one file a transport, with a class `SOURCE`."""
