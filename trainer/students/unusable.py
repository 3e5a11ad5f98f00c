"""What a student cannot take."""

from coat.manifests import InputError


class UnusableInput(InputError):
    """What the student cannot take whole; it is never cut silently.

    `reason`: too_short, too_long, too_many_audios, or special_token (a text that would be read as markup).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
