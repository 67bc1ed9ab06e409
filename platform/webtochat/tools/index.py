"""A full-text index (tantivy, BM25) of documents: title, address and text.

Tantivy gives segments random names. But what one thread writes of so few documents that they fit into its memory
follows from the documents, to the byte. So an index is made of such segments, each on its own, under names that follow
from their place, and `meta.json` lists them: the same documents make the same files.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import tantivy
from tantivy import Filter, Occur, Query, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

from webtochat import storage
from webtochat.errors import UserError
from webtochat.recipe_tools import Index, WebTool

META = "meta.json"
PLAIN = "words"
LONGEST_WORD = 40
HEAP, SMALLEST_HEAP = 8, 15_000_000
"""Memory of a writer as a multiple of its text (prose takes 1.5 times its size, the same few words over and over 4);
the least that tantivy takes."""


class Document(NamedTuple):
    title: str
    url: str
    text: str


@dataclass(frozen=True)
class Found:
    title: str
    url: str
    snippet: str


def words_of(name: str, all_of_them: bool = True) -> TextAnalyzer:
    """How text is cut into words, by the name that an index's schema gives it: `words` or `words-english`. Not all of
    them: without those like "what", "is" and "the", where tantivy has a list of the language's."""
    builder = TextAnalyzerBuilder(Tokenizer.simple())
    builder = builder.filter(Filter.remove_long(LONGEST_WORD)).filter(Filter.lowercase())
    language = name.removeprefix(PLAIN).removeprefix("-")
    if language and not all_of_them:
        with suppress(ValueError):
            builder = builder.filter(Filter.stopword(language))
    return (builder.filter(Filter.stemmer(language)) if language else builder).build()


def batches(documents: Iterable[Document], section: Index) -> Iterator[list[Document]]:
    """Documents in order, as many together as one segment holds."""
    batch: list[Document] = []
    size = 0
    for each in documents:
        batch.append(each)
        size += len(each.text.encode()) + len(each.title.encode())
        if size >= section.segment_mb << 20:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def write_segment(documents: list[Document], section: Index, name: str, directory: str) -> list[dict[str, Any]]:
    """Writes the files of a segment of a name of its own. Returns its entry for `meta`; two or three where the text is
    so odd that it takes more memory than any prose."""
    with tempfile.TemporaryDirectory(prefix="webtochat-") as scratch:
        heap = max(SMALLEST_HEAP, HEAP * section.segment_mb << 20)
        writer = _empty(section, scratch).writer(heap_size=heap, num_threads=1)
        for each in documents:
            writer.add_document(tantivy.Document(title=each.title, url=each.url, text=each.text))
        writer.commit()
        writer.wait_merging_threads()
        entries = json.loads(storage.read_bytes(os.path.join(scratch, META)))["segments"]
        entries.sort(key=lambda entry: storage.sha256(os.path.join(scratch, _stem(entry) + ".store")))
        for number, entry in enumerate(entries):
            old = _stem(entry)
            entry["segment_id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{number}"))
            for file in os.listdir(scratch):
                if file.startswith(old):
                    new = storage.join(directory, file.replace(old, _stem(entry)))
                    with storage.writing(new) as local:
                        shutil.copyfile(os.path.join(scratch, file), local)
        return entries


def write_meta(entries: list[dict[str, Any]], section: Index, directory: str) -> None:
    """Makes one index of the segments in a directory."""
    with tempfile.TemporaryDirectory(prefix="webtochat-") as scratch:
        _empty(section, scratch)
        meta = json.loads(storage.read_bytes(os.path.join(scratch, META)))
    meta["segments"] = entries
    storage.write_bytes(storage.join(directory, META), json.dumps(meta, indent=1).encode())


def _stem(entry: dict[str, Any]) -> str:
    """Of the names of a segment's files."""
    return entry["segment_id"].replace("-", "")


def _empty(section: Index, directory: str) -> tantivy.Index:
    name = f"{PLAIN}-{section.stemmer}" if section.stemmer else PLAIN
    try:
        analyzer = words_of(name)
    except ValueError as error:
        raise UserError(f"index.stemmer={section.stemmer}: tantivy has none of this name; try english") from error
    schema = tantivy.SchemaBuilder()
    schema.add_text_field("title", stored=True, tokenizer_name=name)
    schema.add_text_field("url", stored=True, tokenizer_name="raw", index_option="basic")
    schema.add_text_field("text", stored=True, tokenizer_name=name)
    made = tantivy.Index(schema.build(), path=directory)
    made.register_tokenizer(name, analyzer)
    return made


def _around(text: str, snippet: Any, characters: int) -> str:
    """So many characters of a text, or the few more to the ends of words, with what was found in their middle: the
    fragment that tantivy tells may end right after it."""
    fragment = snippet.fragment()
    marks = [(each.start, each.end) for each in snippet.highlighted()]
    if not marks:
        return text[:characters]
    before = fragment.encode()[: (marks[0][0] + marks[-1][1]) // 2].decode("utf-8", "ignore")  # they are told in bytes
    middle = text.index(fragment) + len(before)
    begin, end = max(0, middle - characters // 2), middle + characters // 2
    begin = text.find(" ", begin) + 1 if begin and " " in text[begin:middle] else begin
    return text[begin : text.rfind(" ", middle, end) if " " in text[middle:end] and end < len(text) else end]


class SearchIndex:
    """An index that is only read, from a local directory (`Artifact.local()`)."""

    def __init__(self, directory: str):
        meta = json.loads(storage.read_bytes(os.path.join(directory, META)))
        name = meta["schema"][0]["options"]["indexing"]["tokenizer"]
        self._words, self._telling = words_of(name), words_of(name, all_of_them=False)
        # Tantivy writes a lock beside the index to open it: beside links to its files, as the artifact is not ours. One
        # of its threads may write another while the links go.
        with tempfile.TemporaryDirectory(prefix="webtochat-", ignore_cleanup_errors=True) as links:
            for file in os.listdir(directory):
                os.symlink(os.path.join(os.path.abspath(directory), file), os.path.join(links, file))
            self._index = tantivy.Index.open(links)
            self._index.register_tokenizer(name, self._words)
            self._searcher = self._index.searcher()
        self.documents: int = self._searcher.num_docs

    def search(self, query: str, section: WebTool) -> list[Found]:
        """The best documents for the words of a query. All of a query is words: tantivy's own parser of queries
        overflows its stack where they are nested. Two that stand beside each other count once more where they do so in
        a text, or a first name here and a last name there would be the person of that name."""
        said = (self._telling.analyze(query) or self._words.analyze(query))[: section.query_words]
        terms, pairs = list(dict.fromkeys(said)), list(dict.fromkeys(pairwise(said)))
        schema = self._index.schema
        wanted = [(Occur.Should, Query.term_query(schema, "text", term)) for term in terms]
        wanted += [
            (Occur.Should, Query.boost_query(query, weight))
            for weight, queries in (
                (section.title_weight, [Query.term_query(schema, "title", term) for term in terms]),
                (section.phrase_weight, [Query.phrase_query(schema, "text", list(pair)) for pair in pairs]),
            )
            for query in queries
        ]
        asked = Query.boolean_query(wanted)
        snippets = tantivy.SnippetGenerator.create(self._searcher, asked, schema, "text")
        snippets.set_max_num_chars(section.snippet_characters)
        found = []
        for _, place in self._searcher.search(asked, section.results).hits:
            document = self._searcher.doc(place)
            shown = _around(document["text"][0], snippets.snippet_from_doc(document), section.snippet_characters)
            found.append(Found(document["title"][0], document["url"][0], " ".join(shown.split())))
        return found

    def documents_with(self, phrase: str, most: int) -> int:
        """How many documents have these words beside each other; of more than `most`, that."""
        schema, words = self._index.schema, self._words.analyze(phrase)
        if len(words) > 1:
            return len(self._searcher.search(Query.phrase_query(schema, "text", list(words)), most).hits)
        return sum(len(self._searcher.search(Query.term_query(schema, "text", word), most).hits) for word in words)

    def page(self, url: str) -> Document | None:
        """The document of an address; of several the first."""
        asked = Query.term_query(self._index.schema, "url", url)
        for _, place in self._searcher.search(asked, 1).hits:
            document = self._searcher.doc(place)
            return Document(document["title"][0], document["url"][0], document["text"][0])
        return None
