"""The one exception that means: the user can correct this."""


class UserError(Exception):
    """A mistake in the user's input; its message is one line naming what was given and what was expected.

    What cannot be printed is escaped: names that come from files may hold line ends and a terminal's commands.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
