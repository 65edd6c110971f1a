# Copyright (c) mmdetr authors. All rights reserved.
"""The one exception type that a user is meant to read."""


class UserError(ValueError):
    """Input that cannot work, told in one sentence.

    The sentence names the file, key or value at fault and what was expected.
    The command line tools print it without a traceback and exit with status
    1; ``--traceback`` shows where it was raised.
    """
