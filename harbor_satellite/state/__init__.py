"""States: what the centre decided, as values, JSON and plans. No I/O lives here."""
