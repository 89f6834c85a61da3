"""The inbox in the project's own database, through the ORM."""
