"""Every error that telltale raises on purpose: one root, small named leaves, one sentence each."""


class TelltaleError(Exception):
    """The root of telltale's own errors."""


class SpecError(TelltaleError):
    """A broken specification (experiment, override, annotation file); never worth a retry."""


class MissingInput(TelltaleError):
    """Things that a run needs and does not find, each with its remedy; raised before any work."""

    def __init__(self, *missing: str) -> None:
        self.missing = missing
        super().__init__("missing: " + "; ".join(missing))


class InputChanged(TelltaleError):
    """Files of a source changed while a run was reading them: what it has read of them fits no recipe."""


class BadImage(TelltaleError):
    """A picture that cannot be used; the caller quarantines it under `reason`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class StoreError(TelltaleError):
    """The store did not do what was asked of it."""


class ObjectMissing(StoreError):
    """There is nothing under this key."""


class ObjectExists(StoreError):
    """Something lies under this key already, and it is never overwritten."""


class StoreNotWritable(StoreError):
    """The store is read-only or full."""


class StoreRefused(StoreError):
    """The store's address, its bucket or the credentials are wrong; never worth a retry."""


class StoreUnreachable(StoreError):
    """Nothing answers at the store's address."""


class DamagedObject(StoreError):
    """A finished object's part is missing, altered or of another size; its manifest has been voided."""


class WrongAnswers(TelltaleError):
    """A network answers its card's self-test otherwise than the card says: this machine computes other numbers."""


class NotFinished(TelltaleError):
    """While an evaluation is planned: something is asked of an object that is still to be made."""


class OtherVersion(TelltaleError):
    """A plan or a store is of another version: this installation does not have what it asks for, or cannot read it."""


class PlanFailed(TelltaleError):
    """Work on pools that cannot be finished: an element failed for good, or no worker can offer what it needs."""


class PlanDamaged(PlanFailed):
    """What a plan keeps in the store cannot be read back."""


class DownloadFailed(TelltaleError):
    """A download broke off or did not match its checksum."""


class Undetectable(TelltaleError):
    """A generator's pictures are told from photographs by no detector as well as the experiment demands."""


class TrainingFailed(TelltaleError):
    """A fit did not produce a usable model."""
