"""Sidecars: keywords added to files of photo programs and removed again; other programs read them."""

import json
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from lesa.cli.write import write
from lesa.errors import LesaError
from lesa.sidecar import keywords_of, sidecar_of
from lesa.tag_files import read_tags
from lesa.xmp import HIERARCHICAL, PROPERTIES, SUBJECT, TAGS_LIST, Property, fold, with_keywords

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
DOG = keywords_of([("animal", "dog"), ("grass",)])
PHOTO = b"\xff\xd8 not touched, so anything will do \xff\xd9"

DIGIKAM = b"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:digiKam="http://www.digikam.org/ns/1.0/"
    xmlns:MicrosoftPhoto="http://ns.microsoft.com/photo/1.0/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:mediapro="http://ns.iview-multimedia.com/mediapro/1.0/"
    xmlns:acdsee="http://ns.acdsee.com/iptc/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
   digiKam:PickLabel="0"
   digiKam:ColorLabel="3"
   acdsee:categories="&lt;Categories&gt;&lt;Category Assigned=&quot;1&quot;&gt;Rex&lt;/Category&gt;&lt;/Categories&gt;"
   xmp:Rating="4">
   <digiKam:TagsList>
    <rdf:Seq>
     <rdf:li>People/Ann</rdf:li>
     <rdf:li>Pets/Rex</rdf:li>
    </rdf:Seq>
   </digiKam:TagsList>
   <MicrosoftPhoto:LastKeywordXMP>
    <rdf:Bag>
     <rdf:li>People/Ann</rdf:li>
     <rdf:li>Pets/Rex</rdf:li>
    </rdf:Bag>
   </MicrosoftPhoto:LastKeywordXMP>
   <lr:hierarchicalSubject>
    <rdf:Bag>
     <rdf:li>People|Ann</rdf:li>
     <rdf:li>Pets|Rex</rdf:li>
    </rdf:Bag>
   </lr:hierarchicalSubject>
   <mediapro:CatalogSets>
    <rdf:Bag>
     <rdf:li>People|Ann</rdf:li>
    </rdf:Bag>
   </mediapro:CatalogSets>
   <dc:subject>
    <rdf:Bag>
     <rdf:li>Ann</rdf:li>
     <rdf:li>Rex</rdf:li>
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""

DARKTABLE = b"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"
    xmlns:darktable="http://darktable.sf.net/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
   xmp:Rating="1"
   xmpMM:DerivedFrom="DSC_0042.NEF"
   darktable:xmp_version="5"
   darktable:raw_params="0"
   darktable:auto_presets_applied="1"
   darktable:history_end="2"
   darktable:iop_order_version="4">
   <darktable:masks_history>
    <rdf:Seq/>
   </darktable:masks_history>
   <darktable:history>
    <rdf:Seq>
     <rdf:li
      darktable:num="0"
      darktable:operation="exposure"
      darktable:enabled="1"
      darktable:modversion="6"
      darktable:params="000000000080b9430000003f00004842000080c00100000001000000"
      darktable:multi_name=""/>
     <rdf:li
      darktable:num="1"
      darktable:operation="filmicrgb"
      darktable:params="gz09eJxjYGiwZ2B4YM/AoAPEFkCsBMQsQAwSY4DyAYjOBcE="/>
    </rdf:Seq>
   </darktable:history>
   <lr:hierarchicalSubject>
    <rdf:Seq>
     <rdf:li>darktable|format|nef</rdf:li>
     <rdf:li>places|Bern</rdf:li>
    </rdf:Seq>
   </lr:hierarchicalSubject>
   <dc:subject>
    <rdf:Seq>
     <rdf:li>Bern</rdf:li>
     <rdf:li>places</rdf:li>
    </rdf:Seq>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""

LIGHTROOM = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0-c000 1.000000, 0000/00/00        ">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
    xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/"
    xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
   xmp:ModifyDate="2023-07-15T14:30:22+02:00"
   xmp:Rating="3"
   xmp:Label="Red"
   photoshop:SidecarForExtension="CR2"
   crs:ProcessVersion="11.0"
   crs:Exposure2012="+0.35">
   <dc:subject>
    <rdf:Bag>
     <rdf:li>M\xc3\xbcnchen</rdf:li>
     <rdf:li>beer &amp; pretzels</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <lr:hierarchicalSubject>
    <rdf:Bag>
     <rdf:li>Places|Germany|M\xc3\xbcnchen</rdf:li>
     <rdf:li>beer &amp; pretzels</rdf:li>
    </rdf:Bag>
   </lr:hierarchicalSubject>
   <dc:description>
    <rdf:Alt>
     <rdf:li xml:lang="x-default">dog</rdf:li>
    </rdf:Alt>
   </dc:description>
   <xmpMM:History>
    <rdf:Seq>
     <rdf:li
      stEvt:action="saved"
      stEvt:changed="/metadata"/>
    </rdf:Seq>
   </xmpMM:History>
   <crs:ToneCurvePV2012>
    <rdf:Seq>
     <rdf:li>0, 0</rdf:li>
     <rdf:li>255, 255</rdf:li>
    </rdf:Seq>
   </crs:ToneCurvePV2012>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
""".replace(b"\n", b"\r\n")

EXIFTOOL = b"""\xef\xbb\xbf<?xpacket begin='\xef\xbb\xbf' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x='adobe:ns:meta/' x:xmptk='Image::ExifTool 12.57'>
<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>

 <rdf:Description rdf:about='uuid:faf5bdd5-ba3d-11da-ad31-d33d75182f1b'
  xmlns:dc='http://purl.org/dc/elements/1.1/'>
  <dc:subject>
   <rdf:Bag>
    <rdf:li>boat</rdf:li>
   </rdf:Bag>
  </dc:subject>
 </rdf:Description>

 <rdf:Description rdf:about='uuid:faf5bdd5-ba3d-11da-ad31-d33d75182f1b'
  xmlns:xmp='http://ns.adobe.com/xap/1.0/'>
  <xmp:Rating>2</xmp:Rating>
 </rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end='w'?>"""

# Everything on one line, other prefixes, comments, CDATA, entities, a nested description that is not the photo's.
BY_HAND = (
    b'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><!-- mine: > --><r:Description r:about="" '
    b'xmlns:d="http://purl.org/dc/elements/1.1/" xmlns:mm="http://ns.adobe.com/xap/1.0/mm/" d:format="a > b">'
    b"<!-- keywords --><d:subject><r:Bag><r:li><![CDATA[R&B]]></r:li><r:li>caf&#233;</r:li><!-- end --></r:Bag>"
    b"</d:subject><mm:Pantry><r:Bag><r:li><r:Description><d:subject><r:Bag><r:li>dog</r:li></r:Bag></d:subject>"
    b"</r:Description></r:li></r:Bag></mm:Pantry></r:Description></r:RDF>"
)
BARE = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"/>
</rdf:RDF></x:xmpmeta>"""
SAMPLES = {
    "digikam": DIGIKAM,
    "darktable": DARKTABLE,
    "lightroom": LIGHTROOM,
    "exiftool": EXIFTOOL,
    "by hand": BY_HAND,
    "bare": BARE,
}
samples = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())


def properties(data: bytes) -> dict[str, object]:
    """Read a sidecar with the standard library: property -> list of words, or the element's XML."""
    root = ElementTree.fromstring(data)
    top = [root] if root.tag == f"{RDF}RDF" else root.findall(f"{RDF}RDF")
    values: dict[str, object] = {}
    for description in (each for rdf in top for each in rdf.findall(f"{RDF}Description")):
        values |= {name: value for name, value in description.attrib.items() if name != f"{RDF}about"}
        for node in description:
            assert node.tag not in values, f"{node.tag} appears twice"
            values[node.tag] = ElementTree.canonicalize(ElementTree.tostring(node), strip_text=True)
            if any(node.tag == tag(each) for each in PROPERTIES):
                values[node.tag] = [item.text or "" for item in node.iter(f"{RDF}li")]
    return values


def tag(wanted: Property) -> str:
    return f"{{{wanted.namespace}}}{wanted.local}"


def words(data: bytes | None, wanted: Property) -> list[str]:
    listed = properties(data).get(tag(wanted), []) if data else []
    assert isinstance(listed, list)
    return listed


def others(data: bytes) -> dict[str, object]:
    """All properties except keywords and our own notes."""
    own = {tag(each) for each in PROPERTIES}
    return {name: value for name, value in properties(data).items() if name not in own and "urn:lesa" not in name}


def changed(data: bytes | None, wanted: dict[Property, list[str]]) -> bytes:
    after = with_keywords(data, wanted)
    assert after is not None
    return after


class Collection:
    """A folder of photos with a file of tags."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tags = folder / "tags.jsonl"

    def add(self, name: str, sidecar: bytes | None = None) -> Path:
        (self.folder / name).write_bytes(PHOTO)
        path = sidecar_of(self.folder / name)
        if sidecar is not None:
            path.write_bytes(sidecar)
        return path

    def tag(self, **photos: list[str]) -> None:
        rows = [
            {"photo": f"{name}.jpg", "tags": [{"label": label, "score": 0.5} for label in labels]}
            for name, labels in photos.items()
        ]
        self.tags.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(self, *options: str) -> Result:
        return CliRunner().invoke(write, [str(self.tags), "--photos", str(self.folder), *options])


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path)


def test_each_program_finds_keywords_in_its_own_form() -> None:
    assert DOG == {
        SUBJECT: ["dog", "grass"],
        HIERARCHICAL: ["AI|animal|dog", "AI|grass"],
        TAGS_LIST: ["AI/animal/dog", "AI/grass"],
    }
    assert keywords_of([("dog",)], "Auto|AI")[HIERARCHICAL] == ["Auto|AI|dog"]
    assert keywords_of([("dog",)], "")[HIERARCHICAL] == ["dog"]


def test_a_new_sidecar_holds_the_tags_and_the_photo_stays(collection: Collection) -> None:
    sidecar = collection.add("a.jpg")
    collection.tag(a=["dog", '<cat> & "co" ]]> \' 犬 🐕'])
    result = collection.write()
    assert result.exit_code == 0
    assert result.output.endswith("1 new\n")
    assert words(sidecar.read_bytes(), SUBJECT) == ["dog", '<cat> & "co" ]]> \' 犬 🐕']
    assert words(sidecar.read_bytes(), HIERARCHICAL)[0] == "AI|dog"
    assert words(sidecar.read_bytes(), TAGS_LIST)[0] == "AI/dog"
    assert (collection.folder / "a.jpg").read_bytes() == PHOTO


@samples
def test_a_sidecar_of_another_program_is_merged_and_undone_to_the_byte(sample: bytes) -> None:
    after = changed(sample, DOG)
    for each in PROPERTIES:
        assert words(after, each) == words(sample, each) + DOG[each]
    assert others(after) == others(sample)
    assert with_keywords(after, {}) == sample


@samples
def test_every_byte_of_another_program_stays(sample: bytes) -> None:
    lines = iter(changed(sample, DOG).replace(b"><", b">\n<").splitlines())
    assert all(line in lines for line in sample.replace(b"><", b">\n<").splitlines())


@samples
def test_writing_twice_changes_nothing(sample: bytes) -> None:
    once = changed(sample, DOG)
    assert with_keywords(once, DOG) == once
    other_order = {each: list(reversed(listed)) for each, listed in DOG.items()}
    assert with_keywords(once, other_order) == once


@samples
def test_new_tags_replace_ours_and_no_tags_take_them_out(sample: bytes) -> None:
    cat = keywords_of([("cat",)], "Robot")
    assert with_keywords(changed(sample, DOG), cat) == with_keywords(sample, cat)
    assert with_keywords(changed(sample, DOG), keywords_of([])) == sample


def test_a_keyword_that_the_owner_had_is_neither_doubled_nor_removed() -> None:
    sample = LIGHTROOM.replace("München".encode(), b"Dog")
    after = changed(sample, DOG)
    assert words(after, SUBJECT) == ["Dog", "beer & pretzels", "grass"]
    assert words(after, HIERARCHICAL)[-2:] == ["AI|animal|dog", "AI|grass"]
    assert with_keywords(after, {}) == sample


def test_nothing_is_noted_where_the_owner_has_all_keywords() -> None:
    mine = keywords_of([("Ann",)], "People")
    assert with_keywords(DIGIKAM, mine) == DIGIKAM


def test_a_sidecar_that_we_made_goes_with_our_keywords(collection: Collection) -> None:
    new, old = collection.add("new.jpg"), collection.add("old.jpg", BARE)
    collection.tag(new=["dog"], old=["dog"])
    collection.write()
    assert collection.write("--undo").output.endswith("1 changed, 1 deleted\n")
    assert not new.exists()
    assert old.read_bytes() == BARE
    assert collection.write("--undo").output.endswith("2 unchanged\n")


def test_a_sidecar_that_we_made_stays_once_the_owner_uses_it() -> None:
    ours = changed(None, DOG)
    rated = ours.replace(
        b" </rdf:RDF>",
        b'  <rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"/>\n </rdf:RDF>',
    )
    after = changed(rated, {})
    assert properties(after) == {"{http://ns.adobe.com/xap/1.0/}Rating": "5"}


def test_what_the_owner_added_and_removed_since_is_kept() -> None:
    after = changed(DIGIKAM, DOG)
    after = after.replace(b"<rdf:li>Rex</rdf:li>", b"<rdf:li>Max</rdf:li>")
    after = after.replace(b"\n     <rdf:li>dog</rdf:li>", b"\n     <rdf:li>my own</rdf:li>", 1)
    assert words(changed(after, {}), SUBJECT) == ["Ann", "Max", "my own"]
    assert words(changed(after, keywords_of([("cat",)])), SUBJECT) == ["Ann", "Max", "my own", "cat"]


def test_a_keyword_that_the_owner_adds_beside_ours_outlives_ours() -> None:
    after = changed(DIGIKAM, DOG).replace(b"<rdf:li>Rex</rdf:li>", b"<rdf:li>Rex</rdf:li><rdf:li>dog</rdf:li>")
    assert words(after, SUBJECT).count("dog") == 2
    assert words(changed(after, {}), SUBJECT) == ["Ann", "Rex", "dog"]


def test_an_empty_list_of_another_program_is_filled() -> None:
    form = b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject>%b</dc:subject>'
    for empty in (b"<rdf:Bag/>", b"<rdf:Bag>\n</rdf:Bag>", b""):
        sample = BARE.replace(b"</rdf:RDF>", form % empty + b"</rdf:Description></rdf:RDF>")
        after = changed(sample, DOG)
        assert words(after, SUBJECT) == ["dog", "grass"]
        assert with_keywords(after, DOG) == after
        assert others(changed(after, {})) == others(sample)
        assert with_keywords(sample, {}) == sample


def test_a_dry_run_shows_the_differences_and_changes_nothing(collection: Collection) -> None:
    old, new = collection.add("a.jpg", changed(DIGIKAM, keywords_of([("cat",)]))), collection.add("b.jpg")
    before = old.read_bytes()
    collection.tag(a=["dog"], b=["dog"])
    lines = collection.write("--dry-run").output.splitlines()
    assert [line for line in lines if not line.startswith("write ")] == [
        f"{old} (changed)",
        "  - dc:subject: cat",
        "  + dc:subject: dog",
        "  - lr:hierarchicalSubject: AI|cat",
        "  + lr:hierarchicalSubject: AI|dog",
        "  - digiKam:TagsList: AI/cat",
        "  + digiKam:TagsList: AI/dog",
        f"{new} (new)",
        "  + dc:subject: dog",
        "  + lr:hierarchicalSubject: AI|dog",
        "  + digiKam:TagsList: AI/dog",
        "would be: 1 changed, 1 new",
    ]
    assert old.read_bytes() == before
    assert not new.exists()


ENTITY = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><x>&e;</x>'
BROKEN = {
    "not well-formed": (LIGHTROOM[:900], "not well-formed"),
    "empty": (b"", "not well-formed"),
    "external entity": (ENTITY, "document type"),
    "document type": (b'<!DOCTYPE x SYSTEM "http://example.org/x.dtd"><x/>', "document type"),
    "latin-1": (b'<?xml version="1.0" encoding="ISO-8859-1"?>' + BARE, "ISO-8859-1"),
    "latin-1, not said": (BARE.replace(b"/>", b" o='\xe9'/>"), "not UTF-8"),
    "utf-16": (BARE.decode().encode("utf-16"), "not UTF-8"),
    "utf-16, big end": (BARE.decode().encode("utf-16-be"), "not UTF-8"),
    "undeclared prefix": (BARE.replace(b"xmlns:xmp=", b"xmlns:xyz="), "not well-formed"),
    "not XMP": (b"<html><body/></html>", "no rdf:RDF"),
    "an attribute": (BARE.replace(b"xmp:Rating", b'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:subject'), "list"),
    "no list": (LIGHTROOM.replace(b"<rdf:Bag>", b"").replace(b"</rdf:Bag>", b""), "not a list"),
    "numbered": (EXIFTOOL.replace(b"rdf:li>", b"rdf:_1>"), "not a list"),
    "plain text": (BY_HAND.replace(b"<r:Bag><r:li><![CDATA", b"boat<r:Bag><r:li><![CDATA"), "not a list"),
}


@pytest.mark.parametrize(("broken", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_sidecar_is_named_and_left_and_the_rest_is_done(
    collection: Collection, broken: bytes, reason: str
) -> None:
    bad, good = collection.add("bad.jpg", broken), collection.add("good.jpg")
    collection.tag(bad=["dog"], good=["dog"])
    result = collection.write()
    assert f"refused: {bad} is left as it is" in result.output
    assert reason in result.output
    assert isinstance(result.exception, LesaError)
    assert "1 of 2 sidecars" in str(result.exception)
    assert bad.read_bytes() == broken
    assert words(good.read_bytes(), SUBJECT) == ["dog"]
    assert sorted(path.name for path in collection.folder.iterdir()) == [
        *("bad.jpg", "bad.jpg.xmp", "good.jpg", "good.jpg.xmp", "tags.jsonl")
    ]


def test_a_photo_that_is_not_there_gets_no_sidecar(collection: Collection) -> None:
    collection.tag(gone=["dog"])
    assert "gone.jpg does not exist: say with --photos" in collection.write().output
    assert not (collection.folder / "gone.jpg.xmp").exists()


def test_a_sidecar_that_cannot_be_read_is_named(collection: Collection) -> None:
    sidecar = collection.add("a.jpg")
    sidecar.mkdir()
    collection.tag(a=["dog"])
    assert f"{sidecar} is left as it is: Is a directory" in collection.write().output


def test_adobe_names_replace_the_suffix(collection: Collection) -> None:
    collection.add("a.jpg")
    collection.tag(a=["dog"])
    collection.write("--naming", "adobe")
    assert words((collection.folder / "a.xmp").read_bytes(), SUBJECT) == ["dog"]
    assert not (collection.folder / "a.jpg.xmp").exists()


def test_two_photos_never_share_a_sidecar(collection: Collection) -> None:
    (collection.folder / "a.cr2").write_bytes(PHOTO)
    collection.add("a.jpg")
    (collection.folder / "b.xmp").write_bytes(BARE)
    rows = [{"photo": name, "tags": [{"label": name}]} for name in ("a.jpg", "a.cr2", "b.xmp")]
    collection.tags.write_text("\n".join(map(json.dumps, rows)))
    output = collection.write("--naming", "adobe").output
    assert "a.cr2 has the same sidecar as" in output
    assert "b.xmp is a sidecar itself" in output
    assert words((collection.folder / "a.xmp").read_bytes(), SUBJECT) == ["a.jpg"]
    assert (collection.folder / "b.xmp").read_bytes() == BARE


def test_permissions_and_links_stay(collection: Collection) -> None:
    sidecar = collection.add("a.jpg")
    target = collection.folder / "elsewhere.xmp"
    target.write_bytes(BARE)
    target.chmod(0o600)
    sidecar.symlink_to(target)
    collection.tag(a=["dog"])
    collection.write()
    assert sidecar.is_symlink()
    assert words(target.read_bytes(), SUBJECT) == ["dog"]
    assert target.stat().st_mode & 0o777 == 0o600


def test_tags_are_read_with_parents_in_words_that_can_be_keywords(tmp_path: Path) -> None:
    rows = [
        {"photo": "a.jpg", "tags": [{"label": "old"}]},
        {"photo": "b/c.jpg", "tags": []},
        {"photo": "a.jpg", "tags": [{"label": " tv/monitor ", "parents": ["a|b", "c \n d"], "score": 2}]},
    ]
    (tmp_path / "tags").write_text("\n".join(map(json.dumps, rows)))
    assert read_tags(tmp_path / "tags", Path("photos")) == {
        Path("photos/a.jpg"): [("a-b", "c d", "tv-monitor")],
        Path("photos/b/c.jpg"): [],
    }


BAD_LINES = [
    ("{", "not a photo with tags"),
    ("[]", "not a photo with tags"),
    ('{"photo": "a.jpg"}', "not a photo with tags"),
    ('{"photo": "", "tags": []}', "not a photo with tags"),
    ('{"photo": 3, "tags": []}', "not a photo with tags"),
    ('{"photo": "a.jpg", "tags": ["dog"]}', "not a photo with tags"),
    ('{"photo": "a.jpg", "tags": [{"label": 3}]}', "not a photo with tags"),
    ('{"photo": "a.jpg", "tags": [{"label": "dog", "parents": "animal"}]}', "not a photo with tags"),
    ('{"photo": "a.jpg", "tags": [{"label": " "}]}', "is empty"),
    ('{"photo": "a.jpg", "tags": [{"label": "a\\u0000b"}]}', "cannot hold"),
    ('{"photo": "a.jpg", "tags": [{"label": "\\ud800"}]}', "cannot hold"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_wrong_line_of_tags_is_named_before_anything_is_written(
    collection: Collection, line: str, reason: str
) -> None:
    sidecar = collection.add("a.jpg")
    collection.tag(a=["dog"])
    collection.tags.write_text(collection.tags.read_text() + line)
    with pytest.raises(LesaError, match=rf"tags.jsonl:2.*{reason}"):
        read_tags(collection.tags, collection.folder)
    assert isinstance(collection.write().exception, LesaError)
    assert not sidecar.exists()


# Few words, so that the owner's and ours are often equal, and some with special characters of XML.
OWNED = st.lists(st.sampled_from(["dog", "Dog", "AI|dog", "AI/dog", "Cat", "a & b", "<x>", "é", ""]), max_size=4)
LABELS = st.lists(st.sampled_from(["dog", "cat", "a & b", "É", "<x>", "]]>"]), max_size=3)
STEPS = st.lists(st.none() | st.tuples(LABELS, st.sampled_from(["AI", "", "Auto|AI"])), max_size=6)


def packet(owned: list[list[str]], form: str, blank: str, apart: bool) -> bytes:
    """A sidecar with the owner's keywords, in one description or in one description per property."""
    from xml.sax.saxutils import escape

    declared = "".join(f' xmlns:{each.prefix}="{each.namespace}"' for each in PROPERTIES)
    start, end = f'{blank}<rdf:Description rdf:about=""{declared} xmlns:o="o:" o:x="1">', f"{blank}</rdf:Description>"
    parts = []
    for each, listed in zip(PROPERTIES, owned, strict=True):
        items = "".join(f"{blank}<rdf:li>{escape(word)}</rdf:li>" for word in listed)
        filled = f"{blank}<{each}>{blank}<rdf:{form}>{items}{blank}</rdf:{form}>{blank}</{each}>"
        parts.append(filled if listed else "")
    body = "".join(parts) if not apart else (end + start.replace(' o:x="1"', "")).join(parts)
    return f'<rdf:RDF xmlns:rdf="{RDF[1:-1]}">{start}{body}{end}{blank}</rdf:RDF>'.encode()


@settings(max_examples=300, deadline=None)
@given(
    owned=st.lists(OWNED, min_size=3, max_size=3),
    form=st.sampled_from(["Bag", "Seq"]),
    blank=st.sampled_from(["", "\n  ", "\r\n\t"]),
    apart=st.booleans(),
    steps=STEPS,
)
def test_the_owners_keywords_never_change(
    owned: list[list[str]],
    form: str,
    blank: str,
    apart: bool,
    steps: list[tuple[list[str], str] | None],
) -> None:
    original = data = packet(owned, form, blank, apart)
    for step in steps:
        wanted = keywords_of([(label,) for label in step[0]], step[1]) if step else {}
        data = changed(data, wanted)
        assert with_keywords(data, wanted) == data
        for each, mine in zip(PROPERTIES, owned, strict=True):
            known = {fold(word) for word in mine}
            ours = [word for word in wanted.get(each, []) if fold(word) not in known]
            there = words(data, each)
            assert there[: len(mine)] == mine
            assert sorted(there[len(mine) :]) == sorted(ours)
    assert with_keywords(data, {}) == original


def saved_with(data: bytes, wanted: Property, word: str) -> bytes:
    """A sidecar as another program saves it: with one more keyword, other prefixes and spaces, no comments."""
    root = ElementTree.fromstring(data)
    words_list = root.find(f".//{tag(wanted)}/*")
    if words_list is None:
        made = ElementTree.SubElement(root, f"{RDF}Description", {f"{RDF}about": ""})
        words_list = ElementTree.SubElement(ElementTree.SubElement(made, tag(wanted)), f"{RDF}Bag")
    item = ElementTree.Element(f"{RDF}li")
    item.text = word
    words_list.insert(0, item)
    return ElementTree.tostring(root, encoding="utf-8")


@settings(max_examples=200, deadline=None)
@given(
    owned=st.lists(OWNED, min_size=3, max_size=3),
    steps=st.lists(LABELS | st.tuples(st.sampled_from(PROPERTIES), st.sampled_from(["dog", "cat", "AI|dog", "new"]))),
)
def test_the_owners_keywords_never_change_though_another_program_adds_some(
    owned: list[list[str]], steps: list[list[str] | tuple[Property, str]]
) -> None:
    data = packet(owned, "Bag", "\n ", apart=False)
    mine = dict(zip(PROPERTIES, map(list, owned), strict=True))
    for step in steps:
        if isinstance(step, tuple):
            each, word = step
            data = saved_with(data, each, word)
            mine[each].append(word)
        else:
            data = changed(data, keywords_of([(label,) for label in step]))
    data = changed(data, {})
    for each in PROPERTIES:
        assert sorted(words(data, each)) == sorted(mine[each])


@settings(max_examples=100, deadline=None)
@given(labels=st.lists(st.text(min_size=1, max_size=12), max_size=4), sample=st.sampled_from([None, *SAMPLES.values()]))
def test_any_label_that_is_accepted_comes_back_as_it_is(labels: list[str], sample: bytes | None) -> None:
    from lesa.tag_files import tag_path

    tags = []
    for label in labels:
        try:
            tags.append(tag_path({"label": label}))
        except LesaError:
            continue
    wanted = keywords_of(tags)
    after = with_keywords(sample, wanted)
    before = words(sample, HIERARCHICAL)
    assert words(after, HIERARCHICAL) == before + wanted[HIERARCHICAL]
    assert with_keywords(after, {}) == sample


# Other programs: they read our keywords, and our notes survive when they save the file.


def program(name: str) -> Callable[..., str]:
    """A function that runs a program and returns its output; without the program the test is skipped."""
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed (Debian packages exiv2, libimage-exiftool-perl)")

    def run(*arguments: str | Path) -> str:
        done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def exiv2_words(exiv2: Callable[..., str], sidecar: Path, key: str) -> list[str]:
    """Return a property's words, which exiv2 prints as one list with commas."""
    return [word.strip() for word in exiv2("-q", "-K", key, "-Pt", "pr", sidecar).split(",") if word.strip()]


EXIV2_KEYS = {SUBJECT: "Xmp.dc.subject", HIERARCHICAL: "Xmp.lr.hierarchicalSubject", TAGS_LIST: "Xmp.digiKam.TagsList"}
EXIFTOOL_KEYS = {
    SUBJECT: "XMP-dc:Subject",
    HIERARCHICAL: "XMP-lr:HierarchicalSubject",
    TAGS_LIST: "XMP-digiKam:TagsList",
}
# exiv2 requires x:xmpmeta and exiftool the prefix `rdf`, so neither reads the sample made by hand.
READABLE = {"new": None} | {name: sample for name, sample in SAMPLES.items() if name != "by hand"}
read_back = pytest.mark.parametrize("sample", READABLE.values(), ids=READABLE.keys())


@read_back
def test_exiv2_reads_the_tags_and_the_owners_keywords(tmp_path: Path, sample: bytes | None) -> None:
    exiv2 = program("exiv2")
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_bytes(changed(sample, DOG))
    for each, key in EXIV2_KEYS.items():
        assert exiv2_words(exiv2, sidecar, key) == words(sample, each) + DOG[each]


@read_back
def test_exiftool_reads_the_tags_and_the_owners_keywords(tmp_path: Path, sample: bytes | None) -> None:
    exiftool = program("exiftool")
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_bytes(changed(sample, DOG))
    read = exiftool_read(exiftool, sidecar)
    for each, key in EXIFTOOL_KEYS.items():
        assert read[key] == words(sample, each) + DOG[each]
    sidecar.write_bytes(sample or changed(None, DOG))
    assert warnings(read) == warnings(exiftool_read(exiftool, sidecar)), "the sample has some, ours adds none"
    assert sample or not warnings(read)


def exiftool_read(exiftool: Callable[..., str], sidecar: Path) -> dict[str, object]:
    [read] = json.loads(exiftool("-json", "-G1", "-a", "-validate", "-warning", "-XMP:all", sidecar))
    return dict(read)


def warnings(read: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in read.items() if "Warning" in name}


SAVES = {
    "exiv2": ["-M", "set Xmp.xmp.Label Green", "-M", "set Xmp.dc.subject XmpBag mine"],
    "exiftool": ["-q", "-overwrite_original", "-XMP-xmp:Label=Green", "-XMP-dc:Subject+=mine"],
}


@pytest.mark.parametrize("name", SAVES)
@read_back
def test_our_keywords_are_found_again_after_another_program_saved_the_file(
    tmp_path: Path, name: str, sample: bytes | None
) -> None:
    run = program(name)
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_bytes(changed(sample, DOG))
    run(*SAVES[name], sidecar)
    saved = sidecar.read_bytes()
    assert set(DOG[SUBJECT]) <= set(words(saved, SUBJECT))
    after = changed(saved, {})
    for each in PROPERTIES:
        assert words(after, each) == words(sample, each) + ["mine"] * (each is SUBJECT)
    assert b"Green" in after
    assert "urn:lesa" not in str(properties(after))


@pytest.mark.parametrize("name", SAVES)
def test_a_sidecar_that_we_made_is_deleted_though_another_program_saved_it(tmp_path: Path, name: str) -> None:
    run = program(name)
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_bytes(changed(None, DOG))
    remove = {
        "exiv2": [["-M", "set Xmp.xmp.Label Green"], ["-M", "del Xmp.xmp.Label"]],
        "exiftool": [["-overwrite_original", "-q", f"-XMP-xmp:Label={label}"] for label in ("Green", "")],
    }
    for options in remove[name]:
        run(*options, sidecar)
    assert with_keywords(sidecar.read_bytes(), {}) is None
