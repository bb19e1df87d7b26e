"""Clients of brokers and servers, one a protocol: what sources, sinks and samples share."""
