"""The door out: delivers `delivery.<tenant>.<destination>`, at least once, in order per device."""
