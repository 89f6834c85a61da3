"""Reception: verifies requests, and stores their events."""
