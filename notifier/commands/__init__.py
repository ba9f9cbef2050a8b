"""The commands, each imported with `notifier`: they import their own modules when they run."""
