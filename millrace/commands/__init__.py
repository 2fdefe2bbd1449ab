"""The commands, one module each with its `app`; `millrace.cli` imports them when they are run."""
