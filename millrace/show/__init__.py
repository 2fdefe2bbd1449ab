"""What a terminal shows: rich renderables of the API's JSON. No I/O; made for 80 columns."""
