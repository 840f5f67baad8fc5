"""A trained run as a folder that any web server can show: the network runs in the visitor's browser."""
