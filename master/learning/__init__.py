"""What is learned from how answers were judged."""
