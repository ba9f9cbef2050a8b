"""The rules, as plain data and functions: no I/O, no framework, no logging."""
