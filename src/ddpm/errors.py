"""The error that is the user's to mend."""


class UsageError(ValueError):
    """What was asked for cannot be done as it was asked. The message names the key or file and the way out.

    On the command line it becomes that message and exit code 2, before any directory is made.
    """
