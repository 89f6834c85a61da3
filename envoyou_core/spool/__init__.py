"""The spool, where events wait while the inbox is down, and the relay that moves them to the inbox afterwards."""
