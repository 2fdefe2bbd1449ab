"""The master process: accepts requests, plans, dispatches, collects, sweeps and streams."""
