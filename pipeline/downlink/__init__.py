"""Stage: what is asked for → its bytes → the device's queue → an answer or a delivery. Pure."""
