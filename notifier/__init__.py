"""notifier: pushes events from backend services to the people they concern."""
