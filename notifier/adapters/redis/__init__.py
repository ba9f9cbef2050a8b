"""The ports fulfilled on Redis or Valkey."""
