"""The whole error tree: what went wrong, whose fault it is, and what to do.

Every class has a stable `code` (clients branch on it), a `status` that HTTP shells answer with, and says whether the
same call may succeed later (`retryable`). A class's docstring is its default message, written for the person who
reads it. Three branches: `Refused` (what the caller sent), `InvariantBroken` (our own mistake), `Unavailable`
(something is down).
"""

from __future__ import annotations

from typing import Any, ClassVar


class SyncError(Exception):
    """Something in the exchange failed."""

    code: ClassVar[str] = "sync_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str | None = None, **extras: Any) -> None:
        """detail: the message for a person; default: the class's docstring. extras: more members of the problem."""
        self.detail = detail or " ".join((type(self).__doc__ or "").split())
        self.extras = extras
        super().__init__(self.detail)


class InvariantBroken(SyncError):
    """The server met a state that must never occur. Report it with the correlation id; nothing was changed."""

    code = "invariant_broken"


class Unavailable(SyncError):
    """A service this needs does not answer right now. Nothing was changed; try again after the time given."""

    code = "unavailable"
    status = 503
    retryable = True

    def __init__(self, detail: str | None = None, *, retry_after_s: int = 2, **extras: Any) -> None:
        """retry_after_s: whole seconds until a new try makes sense."""
        super().__init__(detail, **extras)
        self.retry_after_s = retry_after_s


class Refused(SyncError):
    """The request was not accepted; nothing was changed."""

    code = "refused"
    status = 400


# -- the envelope of a request ------------------------------------------------------------------------------------


class Malformed(Refused):
    """The body is not JSON of the accepted kind. Send UTF-8 JSON without repeated keys, NaN, or numbers over 19
    digits."""

    code = "malformed"


class TooLarge(Refused):
    """The body is larger than the server reads. Send fewer mutations at once."""

    code = "too_large"
    status = 413


class UnsupportedEncoding(Refused):
    """The Content-Encoding is not understood. Use gzip, zstd or none, once."""

    code = "unsupported_encoding"
    status = 415


class Unprocessable(Refused):
    """The JSON does not have the shape that this call expects; `errors` names the places."""

    code = "invalid"
    status = 422


class UnknownFilter(Unprocessable):
    """A query parameter is not one this list can be filtered by."""

    code = "unknown_filter"


class ServerField(Unprocessable):
    """A field was sent that only the server writes. Leave it out."""

    code = "server_field"


class UnknownTechnician(Unprocessable):
    """There is no such technician. Create the technician first, or check the id."""

    code = "unknown_technician"


# -- who is asking ------------------------------------------------------------------------------------------------


class Unauthorized(Refused):
    """The access token is missing, expired or not valid. Get a new one and send the request again."""

    code = "unauthorized"
    status = 401


class DeviceRevoked(Unauthorized):
    """This device may no longer connect. Enrol it again; work that is still on it is kept."""

    code = "device_revoked"


class InvalidGrant(Refused):
    """The code, refresh token or client secret is not valid, was used before, or has expired."""

    code = "invalid_grant"


class Forbidden(Refused):
    """Your role may not do this. Ask an administrator if it should."""

    code = "forbidden"
    status = 403


class NotFound(Refused):
    """There is nothing here that you can see."""

    code = "not_found"
    status = 404


class UpgradeRequired(Refused):
    """This app is too old to receive changes. Update it; work on the device can still be sent."""

    code = "upgrade_required"
    status = 426


# -- the state of a replica or record -----------------------------------------------------------------------------


class Conflicting(Refused):
    """The request does not fit the present state."""

    code = "conflict"
    status = 409


class MutationGap(Conflicting):
    """Mutations are missing before the first one sent. Send again from `expected` on."""

    code = "mutation_gap"


class ReplicaForked(Conflicting):
    """A mutation number was used before for other content: this device's database was copied. Continue under a new
    replica id."""

    code = "replica_forked"


class GroupIncomplete(Conflicting):
    """A group came without all of its mutations. Send the whole group in one push."""

    code = "group_incomplete"


class AlreadyExists(Conflicting):
    """A record with this id exists already; `current` shows it."""

    code = "exists"


class AlreadyResolved(Conflicting):
    """Somebody decided this case before you; it shows who and how."""

    code = "already_resolved"


class PreconditionFailed(Refused):
    """The record changed since you read it; `current` shows it now. Look at it and try again."""

    code = "stale"
    status = 412


class PreconditionRequired(Refused):
    """Send If-Match with the ETag of what you read, so that nobody's change is overwritten unseen."""

    code = "precondition_required"
    status = 428


class CursorExpired(Refused):
    """Deletions newer than this cursor were purged. Start again without a cursor; pending work is kept."""

    code = "cursor_expired"
    status = 410


class EpochChanged(Refused):
    """The server was restored from a backup. Start again without a cursor and offer acknowledged work once more."""

    code = "epoch_changed"
    status = 410


class InvalidCursor(Refused):
    """The cursor is not one that this server gave to this device. Start again without a cursor."""

    code = "invalid_cursor"


class TooManyRequests(Refused):
    """You are sending faster than your share. Wait for the time given."""

    code = "too_many_requests"
    status = 429
    retryable = True

    def __init__(self, detail: str | None = None, *, retry_after_s: int = 2, **extras: Any) -> None:
        """retry_after_s: whole seconds until a new try makes sense."""
        super().__init__(detail, **extras)
        self.retry_after_s = retry_after_s


# -- what one mutation can be told --------------------------------------------------------------------------------


class MutationRefused(Refused):
    """One mutation was not accepted; its successors are not affected."""

    code = "mutation_refused"
    status = 422


class CaptureRefused(MutationRefused):
    """This can never be accepted, so it was not saved."""

    code = "capture_refused"
