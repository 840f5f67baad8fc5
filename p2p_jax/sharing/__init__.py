"""Model files on a hub, and the card that says what one is."""
