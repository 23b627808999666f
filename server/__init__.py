"""The server: a Flask API over PostgreSQL, delivery to other systems by workers, and the console."""
