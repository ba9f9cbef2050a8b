"""The command `notifier`, and `python -m notifier`."""

import signal


def main() -> None:
    """Run the command.

    A SIGHUP that comes before a role can take it waits, rather than end the process: importing
    takes most of a second.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

    from notifier import cli

    cli.main()


if __name__ == "__main__":
    main()
