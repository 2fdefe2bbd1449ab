"""How the texts of the steps become one answer. Pure."""
