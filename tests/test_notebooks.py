"""Every notebook runs from top to bottom, in an empty folder, with an empty cache."""

import sys
from pathlib import Path

import pytest

NUM_FIGURES = {
    "clueanchor": 4,
    "dapt": 8,
    "first_run": 1,
    "kmkc": 5,
    "lab_world": 2,
    "lang": 9,
    "lisa": 9,
    "ndp": 7,
    "plast": 8,
    "rhio": 5,
    "slam": 10,
    "spannorm": 6,
    "start": 5,
    "tm": 9,
}
NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks_and_they_are_stored_without_output():
    nbformat = pytest.importorskip("nbformat")
    assert len(NOTEBOOKS) == len(NUM_FIGURES)
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        assert not [cell for cell in cells if cell.cell_type == "code" and cell.outputs]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, cache: Path):
    import nbformat
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager
    from nbclient import NotebookClient

    class ThisPython(KernelManager):
        """The kernel of the interpreter that runs the tests, whatever kernels the machine has installed."""

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, km=ThisPython(), timeout=200, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert (tmp_path / "results" / "first_run").is_dir() == (path.stem == "first_run")
    images = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    assert len(images) == NUM_FIGURES[path.stem]
    warnings = [out.text for cell in notebook.cells for out in cell.get("outputs", []) if out.get("name") == "stderr"]
    assert not [text for text in warnings if "Glyph" in text]
