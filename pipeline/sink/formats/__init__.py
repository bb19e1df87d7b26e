"""What the body of a delivery looks like outside: `format:` of a sink."""
