"""The early signals say what they claim: known answers for k-NN and projection, records that survive a resume."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segloc_train.data.augment import augment
from segloc_train.data.data import Pairs, View
from segloc_train.data.sources import open_sources
from segloc_train.model.backbone import STRIDES, SDANet
from segloc_train.run.runlog import RunLog, duration, tag
from segloc_train.run.watch import (
    examples,
    knn_accuracy,
    knn_classes,
    project,
    query_features,
    roi_features,
    scatter,
    some,
)

NAMES = ("disc", "square", "tri$angle_1", "ring")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_knn_equals_a_loop_of_weighted_votes() -> None:
    bank, queries = torch.randn(60, 6, generator=seeded(0)), torch.randn(40, 6, generator=seeded(1))
    labels = torch.randint(0, 4, (60,), generator=seeded(2))
    for k in (1, 5, 20, 100):
        found = knn_classes(bank, labels, queries, k)
        for query, mine in zip(queries, found.tolist(), strict=True):
            cosine = torch.nn.functional.cosine_similarity(bank.double(), query.double()[None])
            votes = [0.0] * 4
            for place in cosine.argsort(descending=True)[:k].tolist():
                votes[int(labels[place])] += float((cosine[place] / 0.07).exp())
            assert mine == int(np.argmax(votes))


def test_knn_accuracy_is_one_for_clusters_and_chance_for_a_skewed_guess() -> None:
    centres = 3 * torch.eye(4, 8)
    labels = torch.arange(40) % 4
    noise = 0.1 * torch.randn(2, 40, 8, generator=seeded(0))
    assert knn_accuracy(centres[labels] + noise[0], labels, centres[labels] + noise[1], labels) == 1
    # Features that tell nothing, nine of ten pairs of class 0: the plain share would be 0.9.
    skewed = torch.tensor([0] * 90 + [1] * 10)
    same = torch.ones(100, 3)
    assert knn_accuracy(same, skewed, same, skewed) == 0.5
    assert knn_accuracy(same[:0], skewed[:0], same, skewed) is None


def test_roi_features_look_at_the_box_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    net = SDANet("resnet18", 8).train()
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8, generator=seeded(0))
    boxes = torch.tensor([[8.0, 8, 40, 40], [64, 32, 120, 96]])
    one, two = (roi_features(net, View(images[i : i + 1], boxes[i : i + 1])) for i in (0, 1))
    both = roi_features(net, View(images, boxes))
    assert both.shape == (2, 40) and both.dtype == torch.float32 and not both.requires_grad and net.training
    assert torch.allclose(both, torch.cat([one, two]), atol=1e-5), "no statistics of the batch"
    assert torch.allclose(both.unflatten(1, (5, 8)).norm(dim=2), torch.ones(2, 5))
    # Coarse check of the place: the finest level's mean over the cells whose centres lie in the box.
    with torch.no_grad():
        finest = net.eval()(augment(View(images, boxes), "none", seeded(0)).images)[0]
    cells = boxes[0].long() // STRIDES[0]
    mean = finest[0, :, cells[1] : cells[3], cells[0] : cells[2]].mean((1, 2))
    assert torch.cosine_similarity(mean, both[0, :8], dim=0) > 0.99


def test_features_of_shards_and_a_fixed_choice_of_places(shards: Path) -> None:
    pairs = Pairs(open_sources([str(shards)]))
    net = SDANet("resnet18", 8)
    chosen = some(np.arange(100, 160), 16)
    assert len(set(chosen)) == 16 and chosen.min() >= 100 and (chosen == some(np.arange(100, 160), 16)).all()
    assert (some(np.arange(5), 16) == np.arange(5)).all()
    batches = [pairs.batch(chosen[i : i + 8].tolist()) for i in (0, 8)]
    features, labels = query_features(net, batches, torch.device("cpu"))
    assert features.shape == (16, 40) and labels.tolist() == pairs.sources.labels[chosen].tolist()
    assert torch.equal(features[8:], roi_features(net, batches[1].query))


def test_projection_is_pca() -> None:
    plane = torch.randn(200, 2, generator=seeded(0)) * torch.tensor([5.0, 2.0])
    basis = torch.linalg.qr(torch.randn(7, 2, generator=seeded(1))).Q
    points, shares = project(plane @ basis.T + 3)
    assert shares.sum() == pytest.approx(1, abs=1e-5) and shares[0] > 0.8
    distances, expected = torch.pdist(points), torch.pdist(plane)
    assert torch.allclose(distances, expected, atol=1e-3)
    assert torch.allclose(points, project(plane @ basis.T + 3)[0])
    assert project(torch.ones(3, 4))[0].abs().max() == 0


def test_pictures_show_every_class_and_the_boxes(shards: Path) -> None:
    labels = torch.arange(40) % 4
    picture = np.array(Image.open(io.BytesIO(scatter(torch.eye(4, 8)[labels], labels, NAMES, "a $ title"))))
    for hue in ((47, 129, 216), (224, 130, 61), (63, 164, 91), (176, 95, 199)):
        assert (np.abs(picture[..., :3].astype(int) - hue).max(2)[picture[..., 3] > 150] < 12).any()
    batch = Pairs(open_sources([str(shards)])).batch(list(range(8)))
    views = [augment(view, "mild", seeded(0)) for view in (batch.query, batch.key)]
    sheet = examples(views[0], views[1], batch.labels, NAMES)
    assert sheet.dtype == torch.uint8 and sheet.shape[0] == 3 and sheet.shape[2] > 8 * 192
    magenta = (sheet == torch.tensor([176, 0, 122], dtype=torch.uint8).view(3, 1, 1)).all(0)
    columns = magenta[:, 4:].unflatten(1, (8, -1)).any(2)
    half = len(sheet[0]) // 2
    assert columns[:half].any(0).all() and columns[half:].any(0).all(), "a box in every picture"


def record(step: int, **more: float) -> dict[str, Any]:
    return {
        **{"step": step, "epoch": 1, "loss": 2.0, "lr": 0.1, "samples_per_second": 9.0, "data_wait": 0.0},
        **more,
    }


def scalars(folder: Path, name: str) -> list[int]:
    """Steps of a scalar in TensorBoard."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.step for event in events.Scalars(name)]


def test_records_go_on_where_a_run_resumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="segloc")
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    features, labels = torch.randn(30, 6, generator=seeded(0)), torch.arange(30) % 4
    with RunLog(tmp_path, 0, 40) as log:
        for step in (10, 20, 30):
            log.write(record(step, acc_p2=0.5, queue_collisions=0.0, knn_accuracy=0.25), step == 30)
            log.picture("pairs", picture, step)
        log.embeddings(features, labels, NAMES, 1, 30)
    with RunLog(tmp_path, 20, 40) as log:
        log.write(record(40), True)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [10, 20, 40] == scalars(tmp_path, "loss") and scalars(tmp_path, "queue/collisions") == [10, 20]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Images("pairs")] == [10, 20]
    lines = [line for line in caplog.messages if line.startswith("epoch")]
    assert "accuracy 0.500" in lines[-2] and "k-NN 0.250" in lines[-2] and lines[-1].endswith("waiting 0%")
    assert all(len(line) < 160 for line in lines)
    assert Image.open(tmp_path / "embeddings_001.png").size == (1008, 672)
    vectors = (tmp_path / "projector" / "vectors.tsv").read_text().splitlines()
    assert len(vectors) == 30 and torch.allclose(
        torch.tensor([float(x) for x in vectors[3].split("\t")]), features[3], rtol=1e-3
    )
    assert (tmp_path / "projector" / "classes.tsv").read_text().splitlines()[:4] == list(NAMES)


def test_all_ranks_but_the_first_write_nothing(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, 40, enabled=False) as log:
        log.advance()
        log.write(record(10), True)
        log.picture("pairs", torch.zeros(3, 8, 8, dtype=torch.uint8), 10)
        log.embeddings(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), NAMES, 1, 10)
    assert not list(tmp_path.iterdir())


def test_names_and_durations() -> None:
    assert [
        tag(name) for name in ("loss", "loss_p2", "held_out_accuracy", "held_out_accuracy_p6", "queue_share_Gun")
    ] == ["loss", "loss/p2", "held_out_accuracy", "held_out_accuracy/p6", "queue/share_Gun"]
    seconds = (0.4, 48, 89, 95, 720, 5400, 11520, 40 * 3600, 440_640)
    assert [duration(x) for x in seconds] == [
        *("0 s", "48 s", "89 s", "1.6 min", "12 min", "1.5 h", "3.2 h", "40 h", "5.1 days")
    ]
