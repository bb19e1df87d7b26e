"""The demo: a simulated fleet, simulated network servers and application, and the live view."""
