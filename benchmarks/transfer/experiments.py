"""The experiments, those that decide most first. Seeds of those that choose and of those that report never meet."""

from dataclasses import replace

from benchmarks.transfer.arms import Arm, Experiment

# As slow for one epoch of the CPU's 20,000 pairs as 0.999 is for five million samples.
SLOW = ("--momentum-key", "0.76", "--queue-size", "256")


def pretrained(name: str, *train: str, synth: tuple[str, ...] = ()) -> Arm:
    return Arm(name, synth=synth, train=train)


def method(name: str) -> Arm:
    return Arm(name, train=("--method", name))


def scaled(pairs: int, epochs: int) -> Arm:
    return replace(SEGLOC, name=f"{pairs // 1000}k pairs, {epochs} epochs", pairs=pairs, epochs=epochs)


def once(*arms: Arm) -> tuple[Arm, ...]:
    """With one seed: a hint, nothing to claim."""
    return tuple(replace(arm, seeds=1) for arm in arms)


RANDOM, SEGLOC, CLASSIFY = Arm("random", "random"), Arm("segloc"), method("classify")
COMPOSITES = Arm("composites + labels", "composites")
BOTH = Arm("segloc, then composites + labels", "pretrained, then composites")
LONGER = Arm("2 x composites + labels", "composites", epochs=12)  # for the time of both
PATIENT = Arm("random, 4 x", "random", length=4)  # for the time of composites and labels
SIMULATED = Arm("simulated composites + labels", "composites", objects="simulated", backgrounds="simulated", epochs=6)
ONCE = once(
    *(method(name) for name in ("supcon", "moco", "insloc", "densecl", "cp2")),
    Arm("composites alone", "composites", length=0),
    Arm("random, 2 x", "random", length=2),
    Arm("10 x labels", "random", labels="100%"),
    Arm("10 x labels, 4 x", "random", length=4, labels="100%"),
)
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
    Experiment(
        "arms",
        "Which start pays, at few labels?",
        (RANDOM, SEGLOC, COMPOSITES, CLASSIFY, BOTH, LONGER, PATIENT, *ONCE),
        ("10%",),
        seeds=3,
    ),
    Experiment(
        "labels",
        "Which start pays, at very few labels and at all of them?",
        (RANDOM, COMPOSITES, SEGLOC),
        ("1%", "100%"),
        seeds=1,
    ),
    Experiment(
        "real",
        "Real scans: does pretraining pay on eleven labelled scans of another scanner, or on simulated ones?",
        (RANDOM, *once(SIMULATED, SEGLOC, COMPOSITES)),
        ("all",),
        seeds=2,
        epochs=2,
        real=True,
    ),
    Experiment(
        "features",
        "Real scans: do features learnt on eleven labelled scans know the objects of other scanners?",
        (
            *(RANDOM, SEGLOC, CLASSIFY),
            *once(replace(SEGLOC, name="segloc on simulated bags", backgrounds="simulated")),
        ),
        ("all",),
        seeds=3,
        probe=True,
        epochs=2,
        real=True,
    ),
    Experiment(
        "blend",
        "Which blend teaches a detector most, at equal length? Is it the most real? Do more objects in a scan help?",
        (
            replace(COMPOSITES, name="dual-energy"),
            replace(COMPOSITES, name="dual-energy, 1 to 3 items", synth=("--items", "1", "3")),
            *(replace(COMPOSITES, name=name, synth=flags) for name, flags in BLENDS.items()),
        ),
        ("10%",),
        seeds=1,
        on="val",
        base="dual-energy",
        epochs=2,
        look_at_pairs=True,
    ),
    Experiment(
        "contrast",
        "Class queues, one queue or attraction; what pairs hold; the published schedule",
        (
            *(SEGLOC, method("moco"), method("supcon")),
            *once(
                pretrained("supcon, K 512", "--method", "supcon", "--queue-size", "512"),
                CLASSIFY,
                pretrained("positives of a class", synth=("--positives", "class")),
                pretrained("balanced by class", synth=("--balance", "class")),
                pretrained("1 to 3 items", synth=("--items", "1", "3")),
                pretrained("pasted hard", synth=("--blend", "hard")),
                pretrained("slow keys", *SLOW),
                pretrained("moco, slow keys", "--method", "moco", *SLOW),
                pretrained("published: SGD, slow keys, whole pictures", "--optimizer", "sgd", "--crop", "1", *SLOW),
            ),
        ),
        ("10%",),
        seeds=3,
        on="val",
        base="segloc",
        probe=True,
        epochs=1,
    ),
    Experiment(
        "scale",
        "How many pairs, how often? How many composites?",
        (
            *(RANDOM, COMPOSITES, replace(COMPOSITES, name="composites of 2k pairs + labels", pairs=2_000)),
            replace(COMPOSITES, name="3 x composites + labels", epochs=18),
            Arm("backbone of 8k composites", "backbone", epochs=2),
            *(scaled(2_000, epochs) for epochs in (5, 10, 30)),
            *(scaled(10_000, epochs) for epochs in (5, 10)),
            scaled(50_000, 2),
            scaled(200_000, 1),
            replace(SEGLOC, name="20k pairs, once", epochs=1),
            replace(SEGLOC, name="20k pairs pasted hard, once", epochs=1, synth=("--blend", "hard")),
        ),
        ("10%",),
        seeds=1,
        on="val",
        look_at_pairs=True,
    ),
    Experiment(
        "imagenet",
        "Where ImageNet's weights can be downloaded: are they better, and do pairs add to them?",
        (
            *(RANDOM, Arm("imagenet", "imagenet")),
            *(pretrained("imagenet, then segloc", "--init", "imagenet"), COMPOSITES),
        ),
        ("10%",),
        seeds=1,
    ),
)
