"""The one exception that means: the user can correct this."""


class UserError(Exception):
    """A mistake in the user's input; its message is one line naming what was given and what was expected."""
