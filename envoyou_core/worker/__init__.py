"""Claims due events, runs their handlers, and settles them."""
