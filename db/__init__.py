"""Persistence: tables, migrations, and plain functions over a connection."""
