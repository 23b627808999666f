"""What the server does, without HTTP: each function takes what it needs and knows nothing of requests."""
