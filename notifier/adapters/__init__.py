"""The ports of `notifier.core.ports` fulfilled, one library a module."""
