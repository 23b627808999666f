"""The hub's state in PostgreSQL. SQL is spoken in this package alone."""
