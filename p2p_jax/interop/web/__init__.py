"""A trained run as a folder for any web server: the network runs in the visitor's browser."""
