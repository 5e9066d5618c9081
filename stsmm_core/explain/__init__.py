"""What a network looked at: heat maps of the image, attributions of the clinical variables, and their sanity check."""
