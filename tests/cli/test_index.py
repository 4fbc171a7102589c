"""`athlos index`: one line with size and key, built once; what is wrong is told."""

import re


def products(cache):
    return sorted(path.stat().st_mtime_ns for path in cache.glob("*/*/stage.json"))


def test_a_folder_of_texts_is_indexed_once(run, cache, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("# Rome\nA city in Italy.\n\nIt is old.\n# Oslo\nA city.\n", encoding="utf-8")
    command = ("index", "corpus=files", f"corpus.path={folder}")
    code, out, _ = run(*command)
    assert code == 0
    assert re.fullmatch(r"2 passages \(en 2\), index [0-9a-f]{20}, in .*\n", out)
    built = products(cache)
    assert len(built) == 2  # the corpus and its index
    assert run(*command)[:2] == (0, out)
    assert products(cache) == built
    (folder / "b.txt").write_text("More.", encoding="utf-8")
    assert run(*command)[1].startswith("3 passages (en 3)")


def test_what_is_missing_is_told(run, cache, tmp_path):
    code, out, err = run("index")
    assert (code, out) == (2, "")
    assert "corpus: got none, but the index needs passages to search" in err
    code, _, err = run("index", "index=none", "corpus=files", f"corpus.path={tmp_path}")
    assert (code, "there is nothing to build" in err) == (2, True)
    code, _, err = run("index", "corpus=files", f"corpus.path={tmp_path / 'absent'}")
    assert (code, "is not a folder" in err) == (2, True)
