"""One rule node a file; the folder is scanned, there is no list to edit."""
