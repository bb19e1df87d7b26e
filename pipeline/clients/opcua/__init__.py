"""A client of an OPC-UA server, for sources, sinks and samples. Its library is an extra: whoever
needs these modules imports them when they are needed.
"""
