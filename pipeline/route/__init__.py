"""The stage of rule chains: `device.events` in, deliveries and downlink requests out."""
