"""What a user writes below `connection:`, one file a transport, and what these share."""
