"""The files that a courier carries between the server and a site without any connection."""
