"""The commands: each turns its command line into calls of the library, and tells what comes of them."""
