"""ThingsBoard's exported rule chains → chains of ours, and what could not be carried over."""
