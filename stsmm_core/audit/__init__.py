"""A log that shows when somebody changed it."""
