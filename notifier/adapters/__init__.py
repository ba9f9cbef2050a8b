"""The ports of `notifier.core.ports` fulfilled, a folder for each backend."""
