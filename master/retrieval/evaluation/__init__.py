"""How well retrieval finds what it should: sets with known answers, and measures. No database."""
