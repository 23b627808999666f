"""unit: values only. contract, integration: a real PostgreSQL. simulation: many faults. acceptance: stories."""
