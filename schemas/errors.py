"""The whole error tree.

KeenstreamError
├── UsageError          wrong flag, setting or file: fix it and run again (exit code 2)
├── FullDisk            no room left: free some and run again
├── PermanentError      this record can never be processed: dead-letters, with the reason
│   ├── Conflict        it contradicts what was said before
│   └── InvalidRecord   it does not decode or breaks a rule of its contract
│       └── WithoutConsent  and it says that it may not be kept: no dead letter either
└── RetryableError      a part is away or busy: back off, pause consumption, lose nothing
    ├── Unavailable     the part does not answer; the message says how to start it
    └── Overloaded      the part answers that it is full
"""


class KeenstreamError(Exception):
    """Base of all errors that keenstream raises on purpose."""


class UsageError(KeenstreamError):
    """Wrong flag, setting or file; the message says what to change."""


class FullDisk(KeenstreamError):
    """No room is left on a disk; the message names it."""


class PermanentError(KeenstreamError):
    """The same input will fail again; it belongs in the dead letters."""


class Conflict(PermanentError):
    """Sound in itself, but it contradicts what was said before."""


class InvalidRecord(PermanentError):
    """The bytes do not decode, or a field breaks its contract."""


class WithoutConsent(InvalidRecord):
    """The broken record says that its reader has not consented: it is dropped, not kept as a dead letter."""


class RetryableError(KeenstreamError):
    """The same call may work later."""


class Unavailable(RetryableError):
    """The part does not answer."""


class PartitionsMoved(Unavailable):
    """Another worker holds them by now; nothing was written."""


class Overloaded(RetryableError):
    """The part answers that its queue is full or the deadline passed."""
