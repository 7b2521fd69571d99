"""What a request may ask for: sizes, counts and times, in one place."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of a server; a photo's pixels are limited by Pillow (see `lesa.images.open_photo`)."""

    photo: int = 32 * MIB
    """Bytes of a photo."""
    body: int = 64 * MIB
    """Bytes of a request."""
    photos: int = 16
    """Photos of a request that are uploaded with it."""
    ids: int = 200
    """Photos of a request that the server holds already."""
    labels: int = 1000
    """Labels of a request."""
    letters: int = 100
    """Letters of a label, or of the words to search for."""
    top: int = 200
    """Tags of a photo, or photos of a search."""
    places: int = 8
    """Requests with a body at a time: one is worked on, the others wait; more are told to come back."""
    connections: int = 64
    """Connections at a time."""
    seconds: float = 120
    """Within which a request must have been sent."""
    kept: int = 1024
    """Photos whose codes are held: 70 kB each with ten codes and 36 regions of 384 numbers."""

    @property
    def text(self) -> int:
        """Bytes of a field of the form that is not a file, and of a search: all labels of a request, in any script."""
        return 4 * self.labels * (self.letters + 2)

    def public(self) -> dict[str, int]:
        """Return what a client needs to know."""
        return {"photo": self.photo, "photos": self.photos, "ids": self.ids, "labels": self.labels, "top": self.top}
