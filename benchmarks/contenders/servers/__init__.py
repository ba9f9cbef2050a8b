"""The servers of the peers, as programs of their own: nothing here is imported by notifier."""
