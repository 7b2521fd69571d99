"""An XMP packet whose bytes are edited in place: keywords into it, and out of it again."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from lesa.errors import LesaError

pass

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
LESA = "urn:lesa:sidecar/1.0/"
ABOUT = {f"{RDF} about", "about"}
"""The attribute of a description that is not a property; old programs write it without a namespace."""
LISTS = {f"{RDF} Bag", f"{RDF} Seq", f"{RDF} Alt"}
START_TAG = re.compile(rb"""<(?P<name>[^\s/>]+)(?:[^>"']|"[^"]*"|'[^']*')*>""")
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SEPARATORS = re.compile(r"[|/]")
"""What Lightroom and digiKam put between the levels of a keyword; it cannot stand within a level."""
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
    """The kind of list that is made where there is none yet; an existing one keeps its own."""

    @property
    def key(self) -> str:
        """The name as the parser says it."""
        return f"{self.namespace} {self.local}"

    def __str__(self) -> str:
        return f"{self.prefix}:{self.local}"


SUBJECT = Property("dc", "http://purl.org/dc/elements/1.1/", "subject", "Bag")
HIERARCHICAL = Property("lr", "http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject", "Bag")
TAGS_LIST = Property("digiKam", "http://www.digikam.org/ns/1.0/", "TagsList", "Seq")
PROPERTIES = (SUBJECT, HIERARCHICAL, TAGS_LIST)
NOTES = {each: Property("lesa", LESA, each.local, "Bag") for each in PROPERTIES}
"""Where it is noted which keywords of a property were added."""


# A list, though it holds one word: photo programs turn simple properties into attributes when they save.
CREATED = Property("lesa", LESA, "created", "Bag")
KEYS = {each.key for each in PROPERTIES}
OWN_KEYS = {each.key for each in (*NOTES.values(), CREATED)}
Keywords = Mapping[Property, Sequence[str]]


def fold(word: str) -> str:
    """Return what two spellings of one keyword have in common: programs do not tell `Dog` from `dog`."""
    return unicodedata.normalize("NFC", word).casefold().strip()


def unique(words: Sequence[str], beside: Sequence[str] = ()) -> list[str]:
    """Return `words`, each spelling once, without those that `beside` has."""
    known = {fold(word) for word in beside}
    spelled: dict[str, str] = {}
    for word in words:
        spelled.setdefault(fold(word), word)
    return [word for folded, word in spelled.items() if folded not in known]


@dataclass(eq=False)
class Node:
    """An element and where it lies in the bytes."""

    name: str
    attributes: dict[str, str]
    start: int
    inside: int
    """Where its start tag ends; this is `end` if the element is that tag alone, as `<rdf:Bag/>`."""
    end: int
    children: list["Node"] = field(default_factory=list)
    text: str = ""


def _parse(data: bytes) -> Node:
    """Parse XML; the node above the root element is returned.

    Raises:
        LesaError: it is not well-formed, not UTF-8, or has a document type (which could pull in other files).
    """
    _check_utf8(data)
    top = Node("", {}, 0, 0, len(data))
    opened = [top]
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.buffer_text = True

    def begin(name: str, attributes: dict[str, str]) -> None:
        tag = START_TAG.match(data, parser.CurrentByteIndex)
        assert tag is not None
        node = Node(name, attributes, tag.start(), tag.end(), tag.end())
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
    """Refuse bytes that are not UTF-8: the parser would read UTF-16 too, and our UTF-8 within it would spoil it."""
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
        found = [node for node in inner if node.name == f"{RDF} RDF" and node.inside < node.end]
        if not found:
            raise LesaError("it is not an XMP sidecar (there is no rdf:RDF in it)")
        self.rdf = found[0]
        self.descriptions = [node for node in self.rdf.children if node.name == f"{RDF} Description"]
        for wanted in (*PROPERTIES, *NOTES.values(), CREATED):
            self._check(wanted)

    def _check(self, wanted: Property) -> None:
        """Refuse a property that is no plain list: to add to it would be to guess what the owner meant."""
        odd = any(wanted.key in each.attributes for each in self.descriptions)
        for node in self.nodes(wanted):
            items = [item for child in node.children for item in child.children]
            odd |= bool(node.text.strip() or node.attributes)
            odd |= any(child.name not in LISTS or child.text.strip() for child in node.children)
            odd |= any(item.name != f"{RDF} li" for item in items)
        if odd:
            raise LesaError(f"its {wanted} is not a list of keywords; save it once with a photo program")

    def nodes(self, wanted: Property) -> list[Node]:
        """Return the elements of a property of the photo."""
        return [node for each in self.descriptions for node in each.children if node.name == wanted.key]

    def items(self, wanted: Property) -> list[Node]:
        """Return the elements of a property's keywords."""
        return [item for node in self.nodes(wanted) for item in _items_of(node)]

    def words(self, wanted: Property) -> list[str]:
        """Return a property's keywords."""
        return [item.text for item in self.items(wanted)]

    def added(self, wanted: Property) -> list[Node]:
        """Return the elements of the keywords that are there and that the notes say were added."""
        noted = Counter(self.words(NOTES[wanted]))
        found = []
        for item in reversed(self.items(wanted)):
            if noted[item.text]:
                noted[item.text] -= 1
                found.append(item)
        return found

    def owners(self, wanted: Property) -> list[str]:
        """Return a property's keywords without those that were added."""
        added = {item.start for item in self.added(wanted)}
        return [item.text for item in self.items(wanted) if item.start not in added]

    def holds_nothing(self) -> bool:
        """Say whether there is no property at all."""
        return not any(each.children or each.attributes.keys() - ABOUT for each in self.descriptions)


def _items_of(node: Node) -> list[Node]:
    """Return the entries of a property's list."""
    return [item for each in node.children for item in each.children]


def with_keywords(data: bytes | None, wanted: Keywords) -> bytes | None:
    """Return a sidecar's bytes with `wanted` in place of what was added before; the owner's keywords stay.

    Args:
        data: the sidecar's bytes; None if there is none.
        wanted: keywords to add, one list per property; empty to take out what was added.

    Returns:
        The new bytes: the same ones if nothing is to change, None if there is to be no sidecar, because nothing would
        stand in the one that we made.

    Raises:
        LesaError: the bytes are not a sidecar that can be changed safely.
    """
    packet = Packet(EMPTY if data is None else data)
    new = {each: unique(wanted.get(each, ()), packet.owners(each)) for each in PROPERTIES}
    if data is not None and all(_is_done(packet, each, new[each]) for each in PROPERTIES):
        return data
    created = data is None or bool(packet.words(CREATED))
    bare = Packet(_cut(packet.data, _added_nodes(packet)))
    if any(new.values()):
        return add(bare, new, created)
    return None if created and bare.holds_nothing() else bare.data


def _is_done(packet: Packet, wanted: Property, new: Sequence[str]) -> bool:
    """Say whether exactly the keywords `new` were added to a property, and are still there."""
    there = sorted(item.text for item in packet.added(wanted))
    return there == sorted(packet.words(NOTES[wanted])) == sorted(new)


def _added_nodes(packet: Packet) -> list[Node]:
    """Return the elements to cut: keywords that were added, notes, and what has nothing left in it."""
    added = {item.start for each in PROPERTIES for item in packet.added(each)}
    nodes = []
    for description in packet.descriptions:
        whole = [node for node in description.children if _is_spent(node, added)]
        if whole and len(whole) == len(description.children) and not description.attributes.keys() - ABOUT:
            nodes.append(description)
            continue
        nodes += whole
        rest = [node for node in description.children if node.name in KEYS and node not in whole]
        nodes += [item for node in rest for item in _items_of(node) if item.start in added]
    return nodes


def _is_spent(node: Node, added: set[int]) -> bool:
    """Say whether a property is a note, or a keyword list without any keyword of the owner."""
    return node.name in OWN_KEYS or (node.name in KEYS and all(item.start in added for item in _items_of(node)))


def _cut(data: bytes, nodes: Sequence[Node]) -> bytes:
    """Return `data` without these elements and the blanks before them."""
    for node in sorted(nodes, key=lambda node: node.start, reverse=True):
        data = data[: node.start - len(_blanks_before(data, node.start))] + data[node.end :]
    return data


def _blanks_before(data: bytes, start: int) -> bytes:
    """Return the spaces and line ends before a place: what an element that follows this one is to begin with."""
    kept = len(data[:start].rstrip(b" \t\r\n"))
    return data[kept:start]


def add(packet: Packet, new: Keywords, created: bool) -> bytes:
    """Return a sidecar's bytes with `new` keywords, and with the notes of them."""
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
    # A description of its own: so a sidecar that is written only once gives back every byte when ours is taken out.
    inserted[last.end if last else packet.rdf.inside] = blanks + _own_description(about, block).encode()
    data = packet.data
    for place in sorted(inserted, reverse=True):
        data = data[:place] + inserted[place] + data[place:]
    return data


def _more_items(data: bytes, last: Node, words: Sequence[str]) -> bytes:
    """Return list entries that look like the `last` one and follow it."""
    tag = START_TAG.match(data, last.start)
    assert tag is not None
    name, blanks = tag["name"], _blanks_before(data, last.start)
    return b"".join(blanks + b"<%b>%b</%b>" % (name, escape(word).encode(), name) for word in words)


def _own_description(about: str, properties: Keywords) -> str:
    """Return an `rdf:Description` with lists of keywords; it needs no namespace from around it."""
    namespaces = {"rdf": RDF} | {each.prefix: each.namespace for each in properties}
    declared = "".join(f'\n    xmlns:{prefix}="{namespace}"' for prefix, namespace in namespaces.items())
    lines = [f"<rdf:Description rdf:about={quoteattr(about)}{declared}>"]
    for each, words in properties.items():
        lines += [f"   <{each}>", f"    <rdf:{each.form}>"]
        lines += [f"     <rdf:li>{escape(word)}</rdf:li>" for word in words]
        lines += [f"    </rdf:{each.form}>", f"   </{each}>"]
    return "\n".join([*lines, "  </rdf:Description>"])


def clean(name: str) -> str:
    """Return a name that can be one level of a keyword: separators become hyphens, blanks one space."""
    if found := NOT_XML.search(name := " ".join(name.split())):
        raise LesaError(f"{name!r} has the character {found[0]!r}, which a sidecar cannot hold: remove it")
    return SEPARATORS.sub("-", name)
