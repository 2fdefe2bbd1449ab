"""The worker process: takes subtasks of one model, runs the provider, reports. Has no database."""
