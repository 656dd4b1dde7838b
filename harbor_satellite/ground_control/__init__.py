"""Ground Control: the central service. Rows, use cases over them, and their HTTP API."""
