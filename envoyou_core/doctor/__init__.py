"""Finds what is wrong with an installation: `envoyou doctor`. Each check is a function that yields findings."""
