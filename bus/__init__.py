"""Carrying messages. `protocol.py` is the seam; RabbitMQ and one-process memory stand behind it."""
