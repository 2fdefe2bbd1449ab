"""The console: pages for people, at `/console`, rendered here and made live by SSE."""
