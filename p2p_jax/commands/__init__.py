"""The commands: each one turns its command line into calls of the library and prints the results."""
