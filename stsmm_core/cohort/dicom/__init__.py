"""From a hospital's DICOM export to a cohort folder."""
