"""The HTTP face for devices and the office: one module per group of endpoints, each thin over a service."""
