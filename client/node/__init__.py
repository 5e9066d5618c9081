"""The node of a hospital around Flower's SuperNode: what the site decides, and what leaves."""
