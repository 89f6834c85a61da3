"""Who runs the engine: a worker on the application's event loop, or on a thread of its own."""
