"""People and programs that call the API, and the audit log of what they do."""
