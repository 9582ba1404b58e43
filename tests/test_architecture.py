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
    "segloc_train": {f"segloc_synth.{name}" for name in ("shards", "files", "console", "rle")},
    "segloc_eval": {
        f"segloc_synth.{name}"
        for name in ("files", "console", "coco", "voc", "labelled", "listing", "masks", "phantom", "images", "problems")
    }
    | {f"segloc_synth.{name}" for name in ("shards", "export")}
    | {f"segloc_train.{name}" for name in ("backbone", "checkpoint", "dist", "loop", "start")},
}


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
        unwanted = {
            module
            for module in foreign
            if not any(module == good or module.startswith(f"{good}.") for good in MAY_IMPORT[stage])
        }
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


def test_mm_libraries_are_imported_in_one_place() -> None:
    for name, path in modules("segloc_eval").items():
        if not name.startswith("segloc_eval.mm"):
            assert not {module.split(".")[0] for module in imports(path)} & {"mmdet", "mmcv", "mmengine"}, name


def test_synthesis_needs_no_torch() -> None:
    code = "import segloc_synth.cli, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
