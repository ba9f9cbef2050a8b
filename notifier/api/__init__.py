"""The role that accepts events over HTTP and puts them on the event queue."""
