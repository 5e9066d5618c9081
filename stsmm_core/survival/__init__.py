"""Survival losses and statistics."""
