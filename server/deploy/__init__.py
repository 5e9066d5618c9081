"""The server of a consortium around Flower's SuperLink: kits, certificates, runs."""
