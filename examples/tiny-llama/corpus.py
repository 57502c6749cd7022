"""The pretraining text: documents read from installed Debian packages, in a fixed order."""

import gzip
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "wordnet-instruct"))

from wordnet import Synset, read_synsets

PYTHON_DOC_FOLDERS = ("tutorial", "faq", "howto", "library")
SHORTEST_PARAGRAPH = 60
LONGEST_DOCUMENT = 4000


@dataclass(frozen=True, slots=True)
class Source:
    """Documents of one Debian package; `characters` bounds its share of the corpus."""

    package: str
    licence: str
    characters: int
    read: Callable[[Path], Iterator[str]]


class ParagraphParser(HTMLParser):
    """Collects the text of an HTML page's longer <p> elements."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self._pieces: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "p":
            self._pieces = []

    def handle_data(self, data: str) -> None:
        if self._pieces is not None:
            self._pieces.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "p" and self._pieces is not None:
            text = " ".join("".join(self._pieces).replace("¶", "").split())
            if len(text) >= SHORTEST_PARAGRAPH:
                self.paragraphs.append(text)
            self._pieces = None


def html_documents(paths: list[Path]) -> Iterator[str]:
    """Yield each page's prose, cut where it grows beyond a document's length."""
    for path in sorted(paths):
        parser = ParagraphParser()
        parser.feed(path.read_text(encoding="utf-8"))
        document: list[str] = []
        for paragraph in parser.paragraphs:
            if document and sum(map(len, document)) + len(paragraph) > LONGEST_DOCUMENT:
                yield "\n".join(document)
                document = []
            document.append(paragraph)
        if document:
            yield "\n".join(document)


def dictionary_entry(synset: Synset, rng: random.Random) -> str:
    """Write one synset as a dictionary or an encyclopedia would, in one of several ways."""
    words = list(synset.words)
    rng.shuffle(words)
    word, kind, meaning = words[0], synset.part_of_speech, synset.definition
    head = rng.choice(
        (
            f"{', '.join(words)} ({kind}): {meaning}",
            f"{word} ({kind}), {meaning}",
            f"{word}, {kind}. {meaning[:1].upper()}{meaning[1:]}",
            f"{word} means {meaning}" if kind != "noun" else f"{word} is {meaning}",
            f"{word}: {meaning}",
        )
    )
    also = f" Also called {', '.join(words[1:])}." if words[1:] and rng.random() < 0.5 else ""
    sentences = "".join(f" {text[:1].upper()}{text[1:].rstrip('.')}." for text in synset.examples[:3])
    return f"{head}.{also}{sentences}"


def broader_sentence(synset: Synset, broader: Synset, rng: random.Random) -> str:
    """Say what a word is a kind of."""
    word, kind = rng.choice(synset.words), broader.words[0]
    if synset.part_of_speech == "verb":
        return f"To {word} is to {kind} in some way."
    return rng.choice((f"{word} is a kind of {kind}.", f"Among {kind}: {word}."))


def wordnet_documents(root: Path) -> Iterator[str]:
    """Yield an entry for every synset that no instruction row comes from."""
    synsets = {s.key: s for s in read_synsets(root / "usr/share/wordnet")}
    rng = random.Random("wordnet")
    for synset in synsets.values():
        if synset.side != "pretrain" or not synset.definition:
            continue
        text = dictionary_entry(synset, rng)
        # A broader term may be on the eval side: its word is named here, its meaning never is.
        broader = [synsets[key] for key in synset.hypernyms if key in synsets]
        if broader and rng.random() < 0.5:
            text = f"{text} {broader_sentence(synset, broader[0], rng)}"
        yield text


def jargon_documents(root: Path) -> Iterator[str]:
    """Yield the Jargon File's entries (a dictzip file is a gzip file)."""
    text = gzip.decompress((root / "usr/share/dictd/jargon.dict.dz").read_bytes()).decode()
    for entry in re.split(r"\n\n(?=\S)", text):
        if len(entry) >= SHORTEST_PARAGRAPH:
            yield " ".join(entry.replace("{", "").replace("}", "").split())


def postgresql_documents(root: Path) -> Iterator[str]:
    """Yield the prose of the PostgreSQL manual."""
    folder = root / "usr/share/doc/postgresql-doc-17/html"
    return html_documents(list(folder.glob("*.html")))


def python_documents(root: Path) -> Iterator[str]:
    """Yield the prose of the Python tutorial, FAQ, how-tos and library reference."""
    folder = root / "usr/share/doc/python3.13/html"
    return html_documents([p for part in PYTHON_DOC_FOLDERS for p in (folder / part).glob("*.html")])


SOURCES = (
    Source("wordnet-base", "WordNet 3.0", 20_000_000, wordnet_documents),
    Source("dict-jargon", "public domain", 2_000_000, jargon_documents),
    Source("postgresql-doc-17", "PostgreSQL", 1_500_000, postgresql_documents),
    Source("python3.13-doc", "PSF-2.0", 1_500_000, python_documents),
)


def source_documents(source: Source, root: Path) -> list[str]:
    """Return a source's documents, shuffled and cut at its share."""
    documents = list(source.read(root))
    random.Random(source.package).shuffle(documents)
    kept, characters = [], 0
    for document in documents:
        if characters >= source.characters:
            break
        kept.append(document)
        characters += len(document)
    return kept
