"""The experiments, those that decide most first. Seeds of those that choose and of those that report never meet."""

from dataclasses import replace

from benchmarks.transfer.arms import Arm, Experiment

FAST = ("--optimizer", "adamw", "--crop", "0.5", "--precision", "bfloat16")
FRESH = ("--momentum-key", "0", "--temperature", "0.1")  # K is then a batch: no key is older than a step or two
BASE = (*FAST, *FRESH)


def pretrained(name: str, *train: str, synth: tuple[str, ...] = ()) -> Arm:
    """An arm with the settings of BASE, but for the flags given."""
    return Arm(name, synth=synth, train=(*BASE, *train))


def method(name: str) -> Arm:
    return Arm(name, train=("--method", name, *(FAST if name == "classify" else BASE)))


def probe(name: str, question: str, arms: tuple[Arm, ...]) -> Experiment:
    """Settings compared with those of BASE by what one short pass teaches, without detectors."""
    return Experiment(name, question, arms, ("10%",), 2, on="val", base="segloc", probe=True, epochs=1)


RANDOM, SEGLOC = Arm("random", "random"), method("segloc")
BASELINES = tuple(method(name) for name in ("moco", "insloc", "supcon", "classify", "densecl", "cp2"))
LONGER = (Arm("random, 2 x", "random", length=2), Arm("random, 4 x", "random", length=4))
COMPOSITES = (Arm("composites + labels", "composites"), Arm("composites alone", "composites", length=0))
CEILING = Arm("10 x labels, 4 x", "random", length=4, labels="100%")
BLENDS = {
    "hard": ("--blend", "hard"),
    "alpha 0.2-0.4": ("--blend", "alpha", "--coefficient", "0.2", "0.4"),
    "alpha 0.4-0.6": ("--blend", "alpha", "--coefficient", "0.4", "0.6"),
    "alpha 0.6-0.8": ("--blend", "alpha", "--coefficient", "0.6", "0.8"),
    "alpha 0.8-1": ("--blend", "alpha", "--coefficient", "0.8", "1"),
    "alpha 0.6-0.95": ("--blend", "alpha"),
    "multiply": ("--blend", "multiply"),
}

EXPERIMENTS = (
    probe(
        "recipe",
        "Which schedule learns most in a few minutes?",
        (
            SEGLOC,
            Arm("published: SGD, K, m and whole pictures", train=(*FAST[-2:], "--lr", "0.03")),
            pretrained("SGD, lr 0.16", "--optimizer", "sgd", "--lr", "0.16"),
            Arm("K and m of the defaults", train=(*FAST, *FRESH[2:])),
            pretrained("K 512", "--queue-size", "512"),
            pretrained("m 0.5 a step", "--momentum-key", "0.0625"),
            pretrained("whole pictures", "--crop", "1"),
            pretrained("T 0.2", "--temperature", "0.2"),
            pretrained("T 0.05", "--temperature", "0.05"),
            pretrained("lr half", "--lr", "0.002"),
            pretrained("lr double", "--lr", "0.008"),
            pretrained("moco's augmentation", "--augment", "moco"),
            pretrained("batch 256", "--batch-size", "256"),
            pretrained("batch 256, lr half", "--batch-size", "256", "--lr", "0.002"),
        ),
    ),
    probe(
        "contrast",
        "Class queues, one queue or attraction; what pairs hold",
        (
            SEGLOC,
            method("moco"),
            method("supcon"),
            pretrained("supcon, K 512", "--method", "supcon", "--queue-size", "512"),
            method("classify"),
            pretrained("positives of a class", synth=("--positives", "class")),
            pretrained("balanced by class", synth=("--balance", "class")),
            pretrained("1 to 3 items", synth=("--items", "1", "3")),
        ),
    ),
    probe(
        "blend",
        "Which blend teaches most, at equal length?",
        (SEGLOC, *(pretrained(name, synth=flags) for name, flags in BLENDS.items())),
    ),
    Experiment(
        "arms",
        "Which start pays, at few labels?",
        (RANDOM, SEGLOC, *COMPOSITES, *BASELINES, *LONGER, CEILING),
        ("10%",),
        seeds=3,
    ),
    Experiment(
        "real",
        "Real scans: does pretraining on eleven labelled scans of another scanner pay?",
        (RANDOM, SEGLOC, method("classify"), replace(SEGLOC, name="segloc on simulated bags", backgrounds="simulated")),
        ("all",),
        seeds=8,
        real=True,
    ),
)
