"""The database's schema, step by step; see README.md here."""
