"""How a sample gets to an integration that is not posted to: one file a transport."""
