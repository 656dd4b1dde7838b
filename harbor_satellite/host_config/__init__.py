"""Configuration files of the container runtimes, as text: nothing here reads or writes a file."""
