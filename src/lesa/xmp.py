"""An XMP packet: keywords are inserted into its bytes and removed again; all other bytes stay."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from lesa.errors import LesaError

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
LESA = "urn:lesa:sidecar/1.0/"
ABOUT = {f"{RDF} about", "about"}
"""Names of the one attribute of a description that is not a property; old programs write it without a namespace."""
LISTS = {f"{RDF} Bag", f"{RDF} Seq", f"{RDF} Alt"}
START_TAG = re.compile(rb"""<(?P<name>[^\s/>]+)(?:[^>"']|"[^"]*"|'[^']*')*>""")
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SEPARATORS = re.compile(r"[|/]")
"""Lightroom and digiKam put these between the levels of a keyword, so a level cannot contain them."""
EMPTY = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="lesa">\n'
    b' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
    b" </rdf:RDF>\n"
    b"</x:xmpmeta>\n"
)


class Property(NamedTuple):
    """An XMP property that holds a list of keywords."""

    prefix: str
    namespace: str
    local: str
    form: str
    """The kind of list that is made if the property has no list yet; an existing list keeps its kind."""

    @property
    def key(self) -> str:
        """The name as the XML parser gives it."""
        return f"{self.namespace} {self.local}"

    def __str__(self) -> str:
        return f"{self.prefix}:{self.local}"


SUBJECT = Property("dc", "http://purl.org/dc/elements/1.1/", "subject", "Bag")
HIERARCHICAL = Property("lr", "http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject", "Bag")
TAGS_LIST = Property("digiKam", "http://www.digikam.org/ns/1.0/", "TagsList", "Seq")
PROPERTIES = (SUBJECT, HIERARCHICAL, TAGS_LIST)
NOTES = {each: Property("lesa", LESA, each.local, "Bag") for each in PROPERTIES}
"""Our own property for each property: it notes the added keywords."""
# A list, though it holds one word: photo programs turn simple properties into attributes when they save.
CREATED = Property("lesa", LESA, "created", "Bag")
"""Our own property that notes that we made the sidecar."""
KEYS = {each.key for each in PROPERTIES}
OWN_KEYS = {each.key for each in (*NOTES.values(), CREATED)}
Keywords = Mapping[Property, Sequence[str]]
"""The keywords of each property."""


def fold(word: str) -> str:
    """Return the form that equal keywords share: photo programs treat `Dog` and `dog` as the same keyword."""
    return unicodedata.normalize("NFC", word).casefold().strip()


def unique(words: Sequence[str], beside: Sequence[str] = ()) -> list[str]:
    """Return `words`, each keyword once, without the keywords in `beside`."""
    excluded = {fold(word) for word in beside}
    first: dict[str, str] = {}
    for word in words:
        first.setdefault(fold(word), word)
    return [word for folded, word in first.items() if folded not in excluded]


def clean(name: str) -> str:
    """Return a name as one level of a keyword: separators become hyphens, several blanks become one space.

    Raises:
        LesaError: the name has a character that XML cannot hold.
    """
    if invalid := NOT_XML.search(name := " ".join(name.split())):
        raise LesaError(f"{name!r} has the character {invalid[0]!r}, which a sidecar cannot hold: remove it")
    return SEPARATORS.sub("-", name)


@dataclass(eq=False)
class _Node:
    """An XML element and its place in the bytes."""

    name: str
    attributes: dict[str, str]
    start: int
    inside: int
    """The end of its start tag; equal to `end` if the element has only one tag, as `<rdf:Bag/>`."""
    end: int
    children: list["_Node"] = field(default_factory=list)
    text: str = ""


def _parse(data: bytes) -> _Node:
    """Parse XML and return a node above the root element.

    Raises:
        LesaError: the XML is not well-formed, not UTF-8, or has a document type (which could include other files).
    """
    _check_utf8(data)
    top = _Node("", {}, 0, 0, len(data))
    opened = [top]
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.buffer_text = True

    def begin(name: str, attributes: dict[str, str]) -> None:
        tag = START_TAG.match(data, parser.CurrentByteIndex)
        assert tag is not None
        node = _Node(name, attributes, tag.start(), tag.end(), tag.end())
        opened[-1].children.append(node)
        opened.append(node)

    def finish(name: str) -> None:
        node = opened.pop()
        if not data.endswith(b"/>", node.start, node.inside):
            node.end = data.index(b">", parser.CurrentByteIndex) + 1

    def text(characters: str) -> None:
        opened[-1].text += characters

    def declare(version: str, encoding: str | None, standalone: int) -> None:
        if encoding and encoding.lower() != "utf-8":
            raise LesaError(f"its encoding is {encoding}, expected UTF-8")

    def refuse(*document_type: object) -> None:
        raise LesaError("it has a document type (DOCTYPE), which a sidecar must not have")

    parser.StartElementHandler, parser.EndElementHandler = begin, finish
    parser.CharacterDataHandler, parser.XmlDeclHandler, parser.StartDoctypeDeclHandler = text, declare, refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise LesaError(f"it is not well-formed XML ({error})") from None
    return top


def _check_utf8(data: bytes) -> None:
    """Refuse bytes that are not UTF-8: the parser also reads UTF-16, but inserting UTF-8 would destroy such a file."""
    try:
        unfit = "\0" in data.decode("utf-8")
    except UnicodeDecodeError:
        unfit = True
    if unfit:
        raise LesaError("it is not UTF-8 text")


class Packet:
    """A sidecar's bytes with the place of every keyword."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        top = _parse(data)
        inner = [*top.children, *(node for child in top.children for node in child.children)]
        rdf_nodes = [node for node in inner if node.name == f"{RDF} RDF" and node.inside < node.end]
        if not rdf_nodes:
            raise LesaError("it is not an XMP sidecar (there is no rdf:RDF in it)")
        self.rdf = rdf_nodes[0]
        self.descriptions = [node for node in self.rdf.children if node.name == f"{RDF} Description"]
        for wanted in (*PROPERTIES, *NOTES.values(), CREATED):
            self._check(wanted)

    def _check(self, wanted: Property) -> None:
        """Refuse a property that is not a plain list of keywords: we cannot know how to add to it."""
        odd = any(wanted.key in each.attributes for each in self.descriptions)
        for node in self.nodes(wanted):
            items = [item for child in node.children for item in child.children]
            odd |= bool(node.text.strip() or node.attributes)
            odd |= any(child.name not in LISTS or child.text.strip() for child in node.children)
            odd |= any(item.name != f"{RDF} li" for item in items)
        if odd:
            raise LesaError(f"its {wanted} is not a list of keywords; save it once with a photo program")

    def nodes(self, wanted: Property) -> list[_Node]:
        """Return the elements of a property of the photo."""
        return [node for each in self.descriptions for node in each.children if node.name == wanted.key]

    def items(self, wanted: Property) -> list[_Node]:
        """Return the elements of a property's keywords."""
        return [item for node in self.nodes(wanted) for item in _items_of(node)]

    def words(self, wanted: Property) -> list[str]:
        """Return a property's keywords."""
        return [item.text for item in self.items(wanted)]

    def added(self, wanted: Property) -> list[_Node]:
        """Return the elements of the keywords that are noted as added and still exist."""
        noted = Counter(self.words(NOTES[wanted]))
        added_items = []
        for item in reversed(self.items(wanted)):
            if noted[item.text]:
                noted[item.text] -= 1
                added_items.append(item)
        return added_items

    def owners(self, wanted: Property) -> list[str]:
        """Return a property's keywords without the added ones."""
        added = {item.start for item in self.added(wanted)}
        return [item.text for item in self.items(wanted) if item.start not in added]

    def is_empty(self) -> bool:
        """Whether the packet has no property at all."""
        return not any(each.children or each.attributes.keys() - ABOUT for each in self.descriptions)


def _items_of(node: _Node) -> list[_Node]:
    """Return the entries of a property's list."""
    return [item for each in node.children for item in each.children]


def with_keywords(data: bytes | None, wanted: Keywords) -> bytes | None:
    """Return a sidecar's bytes with `wanted` in place of the earlier added keywords; the owner's keywords stay.

    Args:
        data: the sidecar's bytes; None if it does not exist.
        wanted: keywords to add, one list per property; empty to remove the added keywords.

    Returns:
        The new bytes; `data` itself if nothing changes. None if the sidecar should not exist: we made it, and it would
        be empty.

    Raises:
        LesaError: the bytes are not a sidecar that can be changed safely.
    """
    packet = Packet(EMPTY if data is None else data)
    new = {each: unique(wanted.get(each, ()), packet.owners(each)) for each in PROPERTIES}
    if data is not None and all(_is_done(packet, each, new[each]) for each in PROPERTIES):
        return data
    created = data is None or bool(packet.words(CREATED))
    without_ours = Packet(_cut(packet.data, _added_nodes(packet)))
    if any(new.values()):
        return _add(without_ours, new, created)
    return None if created and without_ours.is_empty() else without_ours.data


def _is_done(packet: Packet, wanted: Property, new: Sequence[str]) -> bool:
    """Whether exactly the keywords `new` were added to a property, and still exist."""
    existing = sorted(item.text for item in packet.added(wanted))
    return existing == sorted(packet.words(NOTES[wanted])) == sorted(new)


def _added_nodes(packet: Packet) -> list[_Node]:
    """Return the elements to remove: added keywords, notes, and elements that would become empty."""
    added = {item.start for each in PROPERTIES for item in packet.added(each)}
    nodes = []
    for description in packet.descriptions:
        spent = [node for node in description.children if _is_spent(node, added)]
        if spent and len(spent) == len(description.children) and not description.attributes.keys() - ABOUT:
            nodes.append(description)
            continue
        nodes += spent
        rest = [node for node in description.children if node.name in KEYS and node not in spent]
        nodes += [item for node in rest for item in _items_of(node) if item.start in added]
    return nodes


def _is_spent(node: _Node, added: set[int]) -> bool:
    """Whether a property is a note, or a keyword list without any keyword of the owner."""
    return node.name in OWN_KEYS or (node.name in KEYS and all(item.start in added for item in _items_of(node)))


def _cut(data: bytes, nodes: Sequence[_Node]) -> bytes:
    """Return `data` without these elements and the blanks before them."""
    for node in sorted(nodes, key=lambda node: node.start, reverse=True):
        data = data[: node.start - len(_blanks_before(data, node.start))] + data[node.end :]
    return data


def _blanks_before(data: bytes, start: int) -> bytes:
    """Return the spaces and line ends before a place. New elements get the same ones."""
    end = len(data[:start].rstrip(b" \t\r\n"))
    return data[end:start]


def _add(packet: Packet, new: Keywords, created: bool) -> bytes:
    """Return a sidecar's bytes with the keywords `new`, and with the notes about them."""
    inserted: dict[int, bytes] = {}
    block: dict[Property, Sequence[str]] = {}
    for wanted, words in new.items():
        if words and (items := packet.items(wanted)):
            inserted[items[-1].end] = _more_items(packet.data, items[-1], words)
        elif words:
            block[wanted] = words
    block |= {NOTES[wanted]: words for wanted, words in new.items() if words}
    if created:
        block[CREATED] = ["True"]
    about = next((each.attributes[name] for each in packet.descriptions for name in ABOUT & each.attributes.keys()), "")
    last = packet.rdf.children[-1] if packet.rdf.children else None
    blanks = _blanks_before(packet.data, last.start) if last else b"\n  "
    # In a description of our own: when it is removed, the owner's bytes are exactly as before.
    inserted[last.end if last else packet.rdf.inside] = blanks + _own_description(about, block).encode()
    data = packet.data
    for place in sorted(inserted, reverse=True):
        data = data[:place] + inserted[place] + data[place:]
    return data


def _more_items(data: bytes, last: _Node, words: Sequence[str]) -> bytes:
    """Return list entries in the style of the `last` one, to follow it."""
    tag = START_TAG.match(data, last.start)
    assert tag is not None
    name, blanks = tag["name"], _blanks_before(data, last.start)
    return b"".join(blanks + b"<%b>%b</%b>" % (name, escape(word).encode(), name) for word in words)


def _own_description(about: str, properties: Keywords) -> str:
    """Return an `rdf:Description` with lists of keywords; it declares all namespaces that it uses."""
    namespaces = {"rdf": RDF} | {each.prefix: each.namespace for each in properties}
    declared = "".join(f'\n    xmlns:{prefix}="{namespace}"' for prefix, namespace in namespaces.items())
    lines = [f"<rdf:Description rdf:about={quoteattr(about)}{declared}>"]
    for each, words in properties.items():
        lines += [f"   <{each}>", f"    <rdf:{each.form}>"]
        lines += [f"     <rdf:li>{escape(word)}</rdf:li>" for word in words]
        lines += [f"    </rdf:{each.form}>", f"   </{each}>"]
    return "\n".join([*lines, "  </rdf:Description>"])
