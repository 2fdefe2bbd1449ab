"""Rules: what people or measurements found to make answers better. Pure."""
