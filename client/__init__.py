"""What runs inside a hospital: the Flower ClientApp and the site's own settings."""
