"""Training: the loop, how it starts, the devices it runs on, what it saves and what it shows."""
