"""Harbor: its REST API v2.0 as this project uses it."""
