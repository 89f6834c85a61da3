"""What the guide asks to track: counts in the inbox's database. See the guide, "Monitoring and Analytics"."""
