"""What test files share. Importing it readies the process: see ``environment``."""

from support import environment as environment
