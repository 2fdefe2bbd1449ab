"""The front door: the command line, and the one-machine mode that composes all processes."""
