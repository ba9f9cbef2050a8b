"""notifier: pushes events from backend services to the people they concern."""

__version__ = "0.1.0"  # the distribution, the chart and the image have the same
