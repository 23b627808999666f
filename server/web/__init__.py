"""What every HTTP face shares: bodies, problems, correlation ids, the one access check, and list queries."""
