"""The ports fulfilled in the memory of one process: for trying things out, and for tests."""
