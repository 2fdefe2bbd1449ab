"""How a request becomes a plan. Pure: no I/O, no clock, no randomness."""
