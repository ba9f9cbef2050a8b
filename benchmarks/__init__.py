"""notifier and its peers side by side: `make bench`, told of in benchmarks/README.md."""
