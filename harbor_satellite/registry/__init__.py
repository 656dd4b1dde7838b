"""Registries: one protocol, two backends (HTTP and OCI image layout), and copying between any two of them."""
