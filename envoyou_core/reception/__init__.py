"""From a request to a proven event, stored: verification, secrets, and the order of the steps."""
