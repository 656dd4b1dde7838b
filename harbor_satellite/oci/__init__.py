"""OCI words as pure types: parse, compare, format. No I/O lives here."""
