"""A chat: rooms with history, and a hint of who is typing. Its pages publish, not its backend."""

from examples.house import Example, run

EXAMPLE = Example("chat")

if __name__ == "__main__":
    run(EXAMPLE)
