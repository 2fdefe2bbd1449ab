"""The HTTP front doors of the master."""
