"""Who judges how well a passage answers a question; one file for each kind of judge."""
