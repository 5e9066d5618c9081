"""Absolute risks of new patients from a finished run."""
