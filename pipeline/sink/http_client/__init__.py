"""The HTTP client of sinks, in a package of its own: what is scanned for transports loads none."""
