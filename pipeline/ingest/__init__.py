"""The door in and the API: HTTP requests → `uplink.received`, `device.events`; replies back."""
