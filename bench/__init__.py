"""The benchmark: Millrace side by side with peers, in one run, on servers that it starts itself."""
