"""The role that takes events from the event queue and publishes them to the broker."""
