"""Pages, and what builds them."""
