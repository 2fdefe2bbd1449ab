"""Content of any supported format as blocks of text."""
