"""What happens to an event after it was accepted: claim, run the handlers, settle."""
