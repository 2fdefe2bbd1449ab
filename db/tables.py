"""All tables: whoever needs the metadata as a whole takes it from here.

A module with tables of its own is imported here, so that migrations are compared with them.
"""

from db import (
    conversation_table,
    corpus,
    models,
    n8n_tables,
    openwebui_tables,
    routing_table,
    rule_table,
)

metadata = models.metadata
MODULES = (
    models,
    corpus,
    conversation_table,
    rule_table,
    openwebui_tables,
    routing_table,
    n8n_tables,
)
