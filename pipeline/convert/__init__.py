"""Uplinks in, events of devices out: `uplink.received` → `device.events`."""
