"""The HTTP API: routes, bodies, who may call what, and what answers carry."""
