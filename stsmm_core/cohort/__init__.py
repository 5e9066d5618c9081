"""The cohort folder: data dictionary, checks, clinical encoding, splits, importers, synthetic cohorts."""
