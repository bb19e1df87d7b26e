"""The messages, frozen, and the life of a downlink. No I/O; every module may import this room."""
