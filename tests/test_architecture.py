"""The structure that the design promises: one-way imports, and a synthesis that needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("segloc_synth", "segloc_train", "segloc_eval")
MAY_IMPORT = {
    "segloc_synth": set(),
    "segloc_train": {f"segloc_synth.{name}" for name in ("shards.format", "files", "console", "rle")},
    "segloc_eval": {
        f"segloc_synth.{name}" for name in ("files", "console", "sources", "phantom", "shards.format", "look.export")
    }
    | {f"segloc_train.{name}" for name in ("model", "dist", "run.loop")},
}
# The rooms of each stage, from the ground up: one imports only from those before it.
ROOMS = {
    "segloc_synth": "files console rle engines phantom shards config sources colour bank check compose look builds "
    "realism cli_build cli",
    "segloc_train": "dist data model methods flags config run summary cli",
    "segloc_eval": "recipe config numbers data report mm run options cli",
}
LARGEST = 14  # files in a folder


def imports(path: Path) -> set[str]:
    """Modules named in the import statements of a file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(stage: str) -> dict[str, Path]:
    folder = ROOT / stage.removeprefix("segloc_") / stage
    paths = {path.relative_to(folder.parent).with_suffix(""): path for path in folder.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in paths.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_only_what_it_may_from_earlier_ones(stage: str) -> None:
    others = {f"{other}." for other in STAGES if other != stage}
    for name, path in modules(stage).items():
        foreign = {module for module in imports(path) if any(module.startswith(other) for other in others)}
        good = MAY_IMPORT[stage]  # or what is inside it, or a package on the way to it
        unwanted = {m for m in foreign if not any(f"{m}.".startswith(f"{g}.") or g.startswith(f"{m}.") for g in good)}
        assert not unwanted, f"{name} imports {unwanted}"


@pytest.mark.parametrize("stage", STAGES)
def test_imports_inside_a_stage_have_no_cycle(stage: str) -> None:
    paths = modules(stage)
    graph = {name: {module for module in imports(path) if module in paths} - {name} for name, path in paths.items()}
    # A package's own __init__ and the parts it gathers are one room.
    graph = {name: {other for other in others if not name.startswith(f"{other}.")} for name, others in graph.items()}
    while leaves := [name for name, others in graph.items() if not others]:
        for leaf in leaves:
            del graph[leaf]
        graph = {name: others - set(leaves) for name, others in graph.items()}
    assert not graph, f"cycle among {sorted(graph)}"


@pytest.mark.parametrize("stage", STAGES)
def test_rooms_import_from_those_below(stage: str) -> None:
    floors = ROOMS[stage].split()
    found = {name.split(".")[1] for name in modules(stage) if "." in name} - {"__main__"}
    assert sorted(floors) == sorted(found)
    for name, path in modules(stage).items():
        room = name.partition(".")[2].split(".")[0]
        below = floors[: floors.index(room) + 1] if room in floors else floors
        inside = {module.split(".")[1] for module in imports(path) if module.startswith(f"{stage}.")} & set(floors)
        assert inside <= set(below), f"{name} imports from {inside - set(below)}"


def test_folders_are_small_and_say_what_comes_in_and_what_goes_out() -> None:
    for stage in STAGES:
        for folder in {path.parent for path in modules(stage).values()}:
            assert len(list(folder.glob("*.py"))) <= LARGEST, folder
            doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
            assert doc, folder


READERS = {"yaml", "csv", "xml"}  # of label files
LABELS = {"categories", "segmentation", "iscrowd", "bndbox", "ImageSets"}  # what is in them
WRITERS = ("segloc_synth.look.export", "segloc_synth.phantom", "segloc_eval.data.datasets")  # of COCO data sets
RESULTS = ("segloc_eval.run", "segloc_eval.numbers", "segloc_eval.report", "segloc_eval.mm")  # read what we wrote


def test_label_files_are_opened_in_one_place() -> None:
    """COCO's json, xml, yaml, mask pictures and lists; others may write COCO, and read results and truth of ours."""
    for stage in STAGES:
        for name, path in modules(stage).items():
            if name.startswith("segloc_synth.sources"):
                continue
            assert not {module.split(".")[0] for module in imports(path)} & READERS, name
            words = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
            if not name.startswith((*WRITERS, *RESULTS)):
                assert not words & LABELS, f"{name} knows {words & LABELS}"


def test_the_reader_of_labels_needs_neither_torch_nor_mm() -> None:
    code = "import segloc_synth.sources.rules, segloc_synth.sources.layouts.find, sys; "
    code += "sys.exit(bool({'torch', 'mmengine'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_mm_libraries_are_imported_in_one_place() -> None:
    for name, path in modules("segloc_eval").items():
        if not name.startswith("segloc_eval.mm"):
            assert not {module.split(".")[0] for module in imports(path)} & {"mmdet", "mmcv", "mmengine"}, name


def test_synthesis_needs_no_torch() -> None:
    code = "import segloc_synth.cli, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
