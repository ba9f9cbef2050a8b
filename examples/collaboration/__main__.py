"""A board of notes that several people move and write at once, and see each other's pointers."""

from examples.house import Example, run

EXAMPLE = Example("collaboration")

if __name__ == "__main__":
    run(EXAMPLE)
