"""Virtual centres on one machine."""
