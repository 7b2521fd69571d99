"""The limits of requests: sizes, numbers and times, in one place."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of a server; Pillow limits the pixels of a photo (see `lesa.images.open_photo`)."""

    photo: int = 32 * MIB
    """Bytes of one photo."""
    body: int = 64 * MIB
    """Bytes of one request."""
    photos: int = 16
    """Photos that are uploaded with one request."""
    ids: int = 200
    """Ids in one request, of photos that the server holds already."""
    labels: int = 1000
    """Labels in one request."""
    letters: int = 100
    """Letters of one label, or of the words to search for."""
    top: int = 200
    """Tags per photo, or photos per search."""
    places: int = 8
    """Requests with a body at the same time: the server works on one, the others wait. More are refused as busy."""
    connections: int = 64
    """Connections at the same time."""
    seconds: float = 120
    """Seconds in which a request must be sent."""
    kept: int = 1024
    """Photos whose codes are kept: 70 kB per photo with ten codes and 36 regions of 384 numbers."""

    @property
    def text(self) -> int:
        """Bytes of a text field of the form, and of a search: enough for all labels of a request, in any script."""
        return 4 * self.labels * (self.letters + 2)

    def public(self) -> dict[str, int]:
        """Return the limits that a client needs to know."""
        return {
            "photo": self.photo,
            "body": self.body,
            "photos": self.photos,
            "ids": self.ids,
            "labels": self.labels,
            "letters": self.letters,
            "top": self.top,
        }
