"""What a session stands on: engine, state, catalog, logs, metadata, interrupts."""
