"""COVID-CT-Mask-Net: ranking and targets exactly, both stages by their configs."""

import csv
import json
from collections import Counter
from pathlib import Path

import mask_rcnn_classifier as package
import nibabel
import numpy as np
import pytest
import torch
from bundle_commands import (
    BUNDLES_FOLDER,
    assert_refused_in_one_line,
    parsed,
    printed_losses,
    run_configs,
)
from ignite.engine import Engine, Events
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from tools.datasets.diagnosed import write_opacities
from tools.evaluate.detection import average_precision, read_truth
from tools.phantom import Grid, build_phantom, write_nifti

BUNDLE = BUNDLES_FOLDER / "mask_rcnn_classifier"

DISEASES = ("covid19", "bacterial", "normal", "covid19")
SMALL = (
    *("--slice_size", "[64,64]", "--spacing_mm", "[5.6,5.6]", "--smallest_lesion", 4),
    *("--held_out", "['p3-*']", "--train#slices_per_epoch", 8, "--train#slices_per_batch", 4),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    grid = Grid.axial((12, 64, 64), (24.0, 5.6, 5.6))
    rows = ["name,diagnosis"]
    for number, disease in enumerate(DISEASES):
        phantom = build_phantom(grid, disease, 30 + number)
        name = f"p{number}-{disease}"
        write_nifti(phantom, folder, name)
        write_opacities(phantom, folder, name)
        rows.append(f"{name},{disease}")
    (folder / "diagnoses.csv").write_text("\n".join(rows))
    return folder


def test_boxes_are_ranked_by_score_and_keep_their_code() -> None:
    scores = torch.tensor([[0.5, 0.1, 0.4], [0.1, 0.7, 0.2], [0.95, 0.03, 0.02]])
    encoded = torch.arange(36.0).reshape(3, 3, 4)
    # Region 2 is empty; the others lie apart.
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [5, 5, 5, 9]])
    rows = package.rank_boxes(scores, encoded, boxes[:, None].expand(-1, 3, -1), 4, 0.75)
    assert torch.allclose(rows[:, 4], torch.tensor([0.7, 0.4, 0.2, 0.1]))
    expected = torch.stack([encoded[1, 1], encoded[0, 2], encoded[1, 2], encoded[0, 1]])
    assert torch.equal(rows[:, :4], expected)


def test_overlapping_boxes_of_a_class_are_dropped_those_of_two_classes_are_not() -> None:
    scores = torch.tensor([[0.0, 0.6, 0.4], [0.2, 0.5, 0.3]])
    encoded = torch.zeros(2, 3, 4)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])[:, None].expand(-1, 3, -1)
    kept = package.rank_boxes(scores, encoded, boxes, 2, 0.75)[:, 4]
    assert torch.allclose(kept, torch.tensor([0.6, 0.4]))
    kept = package.rank_boxes(scores, encoded, boxes, 4, 0.95)[:, 4]
    assert torch.allclose(kept, torch.tensor([0.6, 0.5, 0.4, 0.3]))


def test_few_predictions_are_repeated_in_their_order_and_none_gives_zeros() -> None:
    scores = torch.tensor([[0.4, 0.6, 0.0]])
    encoded = torch.ones(1, 3, 4)
    box = torch.tensor([[[0.0, 0, 10, 10]]]).expand(-1, 3, -1)
    rows = package.rank_boxes(scores, encoded, box, 6, 0.75)
    assert torch.allclose(rows[:, 4], torch.tensor([0.6, 0.6, 0.6, 0.0, 0.0, 0.0]))
    assert package.rank_boxes(scores, encoded, box * 0, 6, 0.75).abs().sum() == 0
    # At a positive threshold the zero would go too.
    assert (package.rank_boxes(scores, encoded, box, 3, 0.75, 0.05)[:, 4] > 0.5).all()


def test_the_rows_decode_to_the_boxes_that_they_stand_for() -> None:
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    proposal = torch.tensor([[10.0, 10.0, 30.0, 40.0]])
    wanted = torch.tensor([[12.0, 8.0, 33.0, 44.0]])
    code = coder.encode([wanted], [proposal])[0][:, None].expand(-1, 3, -1)
    decoded = coder.decode(code.reshape(1, 12), [proposal])
    rows = package.rank_boxes(torch.tensor([[0.2, 0.7, 0.1]]), code, decoded, 2, 0.75)
    assert torch.allclose(coder.decode(rows[:1, :4], [proposal])[0], wanted, atol=1e-3)


def _detector(backbone: str = "unet") -> MaskRCNN:
    if backbone == "unet":
        return parsed(BUNDLE, "train").get_parsed_content("detector")
    return package.mask_rcnn(package.resnet_pyramid(backbone))


def test_the_detector_has_the_hyperparameters_of_table_2() -> None:
    detector = _detector("resnet18")
    anchors = detector.rpn.anchor_generator
    assert set(anchors.sizes) == {(4, 8, 16, 32)}
    assert set(anchors.aspect_ratios) == {(0.1, 0.25, 0.5, 1.0, 1.5, 2.0)}
    assert detector.rpn.nms_thresh == 0.75
    assert detector.rpn.proposal_matcher.high_threshold == 0.75
    heads = detector.roi_heads
    assert (heads.nms_thresh, heads.score_thresh, heads.detections_per_img) == (0.25, 0.05, 100)
    assert heads.proposal_matcher.high_threshold == 0.75
    detector.train()
    image = torch.rand(3, 64, 64)
    opacity = np.zeros((1, 64, 64), np.uint8)
    opacity[0, 10:30, 10:30] = 1
    target = package.lesion_targets({"opacity": opacity}, smallest=4)["target"]
    five = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"}
    assert set(detector([image], [target])) == five


@pytest.mark.parametrize("configs", ["train", "inference"])
def test_a_resnet_has_the_anchors_of_table_2(configs: str) -> None:
    detector = parsed(BUNDLE, f"{configs} variants/resnet18").get_parsed_content("detector")
    assert set(detector.rpn.anchor_generator.sizes) == {(4, 8, 16, 32)}


def test_the_short_recipe_changes_what_the_detector_learns_from_and_no_weight() -> None:
    detectors = [
        parsed(BUNDLE, configs).get_parsed_content("detector")
        for configs in ("train", "train variants/cpu", "inference")
    ]
    paper, short, inference = detectors
    overlaps = [d.rpn.proposal_matcher.high_threshold for d in detectors]
    assert overlaps[:2] == [0.75, 0.5]
    assert [d.roi_heads.proposal_matcher.high_threshold for d in detectors] == overlaps
    assert paper.roi_heads.fg_bg_sampler.batch_size_per_image == 256
    assert short.roi_heads.fg_bg_sampler.batch_size_per_image == 64
    inference.load_state_dict(short.state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_slices_keep_their_size_and_values(training: bool) -> None:
    transform = _detector().train(training).transform
    slices = [torch.rand(1, 64, 80), torch.rand(1, 64, 96)]
    batch, _ = transform(slices)
    assert batch.image_sizes == [(64, 80), (64, 96)]
    assert torch.equal(batch.tensors[0, :, :, :80], slices[0])
    assert torch.equal(batch.tensors[1], slices[1])


def test_detections_are_ranked_by_how_sure_their_masks_are_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def found(*_: object) -> list[dict[str, torch.Tensor]]:
        masks = torch.zeros(3, 1, 8, 8)
        masks[0, 0, :4], masks[0, 0, 4:] = 0.6, 0.4
        masks[1, 0, :2, :4] = torch.tensor([0.9, 0.8, 0.9, 0.8])
        masks[2] = 0.2
        return [{"scores": torch.tensor([0.9, 0.8, 0.7]), "masks": masks}]

    detector = _detector().eval()
    monkeypatch.setattr(detector, "detect", found)
    (result,) = detector([])
    # Of the third's mask no pixel is left.
    assert result["scores"].tolist() == pytest.approx([0.9 * 0.6, 0.8 * 0.85, 0])


def test_a_mirrored_slice_gives_mirrored_detections(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    detector = _detector().eval().double()
    # Regions on the slice's middle are their own mirror images.
    half, top = torch.arange(4.0, 28.0, 3.0), torch.arange(8.0)
    regions = torch.stack([40 - half, top, 40 + half, top + half], dim=1).double()
    monkeypatch.setattr(
        detector.rpn, "forward", lambda images, _: ([regions] * len(images.tensors), {})
    )
    image = torch.rand(3, 64, 80).double()
    with torch.no_grad():
        (plain,), (mirrored,) = detector([image]), detector([image.flip(-1)])
    assert len(plain["labels"]) > 2
    for name in ("labels", "scores"):
        torch.testing.assert_close(mirrored[name], plain[name])
    torch.testing.assert_close(mirrored["masks"], plain["masks"].flip(-1), atol=1e-6, rtol=0)
    left, top, right, bottom = plain["boxes"].unbind(1)
    turned = torch.stack([80 - right, top, 80 - left, bottom], dim=1)
    torch.testing.assert_close(mirrored["boxes"], turned)


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.4])
def test_a_mask_to_learn_from_is_placed_where_it_was(shift: float) -> None:
    truth = torch.zeros(2, 40, 60, dtype=torch.uint8)
    truth[0, 10:17, 20:27] = 1
    truth[1, :9, 44:] = 1
    boxes = (
        torch.tensor([[20.0, 10, 27, 17], [44, 0, 60, 9]]) + torch.tensor([-1, 1, 1, -1]) * shift
    )
    learned = project_masks_on_boxes(truth, boxes, torch.arange(2), 28)
    placed = package.detector.place_masks(learned[:, None], boxes, (40, 60))
    assert torch.equal(placed[:, 0] >= 0.5, truth > 0)


def test_regions_are_the_best_of_both_looks_without_those_that_overlap() -> None:
    detector = parsed(BUNDLE, "train", proposals=3).get_parsed_content("detector").eval()
    seen = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    mirrored = torch.tensor([[0.0, 0, 10, 11], [60, 0, 70, 10]])
    (regions,) = detector.best_of([seen], [mirrored])
    assert torch.equal(regions, torch.stack([seen[0], seen[1], mirrored[1]]))


def test_targets_are_the_connected_pieces_of_each_class() -> None:
    opacity = np.zeros((1, 20, 30), np.uint8)
    opacity[0, 2:6, 3:10] = 1
    opacity[0, 12:15, 20:22] = 1
    opacity[0, 6:8, 3:6] = 2
    opacity[0, 19, 29] = 2
    target = package.lesion_targets({"opacity": opacity}, smallest=4)["target"]
    assert target["labels"].tolist() == [1, 1, 2]
    assert target["boxes"].tolist() == [[3, 2, 10, 6], [20, 12, 22, 15], [3, 6, 6, 8]]
    assert target["masks"].sum(dim=(1, 2)).tolist() == [28, 6, 6]
    empty = package.lesion_targets({"opacity": np.zeros((1, 9, 9), np.uint8)}, smallest=4)["target"]
    assert empty["boxes"].shape == (0, 4)
    assert empty["masks"].shape == (0, 9, 9)


@pytest.mark.parametrize("backbone", ["unet", "resnet18"])
@pytest.mark.parametrize("trained", ["s", "s_bn", "box", "full"])
def test_each_mode_trains_what_it_says(trained: str, backbone: str) -> None:
    network = package.LesionClassifier(_detector(backbone), trained=trained, number=32).train()
    assert not any(module.training for module in network.detector.modules())
    package.one_hot(network(torch.rand(1, 3, 64, 64)), torch.tensor([1])).backward()
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    with_gradient = {name for name, p in network.named_parameters() if p.grad is not None}
    assert learning == with_gradient
    s = {name for name in learning if name.startswith("s.")}
    assert len(s) == 6
    others = learning - s
    modules = dict(network.named_modules())
    kinds = {type(modules[name.rpartition(".")[0]]) for name in others}
    parts = {name.split(".")[0] for name in others}
    expected = {
        "s": (set(), set()),
        "s_bn": ({nn.BatchNorm2d}, {"detector"}),
        "box": ({nn.Linear}, {"box_head", "box_predictor"}),
    }
    if trained in expected:
        assert (kinds, parts) == expected[trained]
    else:
        assert parts == {"detector", "box_head", "box_predictor"}
        assert nn.Conv2d in kinds
        assert not any(".rpn." in name or ".roi_heads." in name for name in others)


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    detector = _detector()
    with pytest.raises(SystemExit, match="does not exist"):
        package.copy_weights(detector, tmp_path / "none.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(SystemExit, match=r"other\.pt holds no weights"):
        package.copy_weights(detector, tmp_path / "other.pt")


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="heads"):
        package.LesionClassifier(_detector(), trained="heads")


def test_the_pyramid_of_a_unet_has_half_the_resolution_and_so_on() -> None:
    backbone = parsed(BUNDLE, "train").get_parsed_content("backbone").eval()
    maps = backbone(torch.rand(2, 3, 64, 96))
    assert list(maps) == ["0", "1", "2", "3", "pool"]
    assert len(maps) == backbone.levels
    sizes = [tuple(each.shape) for each in maps.values()]
    assert sizes == [(2, 64, 64 // step, 96 // step) for step in (2, 4, 8, 16, 32)]


def test_anchors_of_another_number_of_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="4 levels, the backbone has 5"):
        package.mask_rcnn(package.resnet_pyramid("resnet18"), anchor_sizes=[[4]] * 4)


def test_the_finest_level_of_the_pyramid_sees_every_pixel() -> None:
    backbone = parsed(BUNDLE, "train").get_parsed_content("backbone").eval()
    finest: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    backbone.decoder[-1].register_forward_hook(lambda *call: finest.append(call[-1]))
    backbone.lateral[0].register_forward_pre_hook(lambda _, call: seen.append(call[0]))
    with torch.no_grad():
        backbone(torch.rand(1, 3, 64, 96))
    channels = 4 * finest[0].shape[1]
    assert torch.equal(nn.functional.pixel_shuffle(seen[0][:, :channels], 2), finest[0])


def test_training_starts_from_the_slice_network(tmp_path: Path) -> None:
    slices = parsed(BUNDLES_FOLDER / "lesion_segmentation_2d", "inference")
    torch.manual_seed(5)
    trained = slices.get_parsed_content("network_def").eval()
    torch.save(trained.state_dict(), tmp_path / "slices.pt")
    parser = parsed(BUNDLE, "train", slice_weights=str(tmp_path / "slices.pt"))
    backbone = parser.get_parsed_content("detector").backbone.eval()
    parser.get_parsed_content("start_from_slices")
    image = torch.rand(1, 3, 64, 64)
    finest: list[torch.Tensor] = []
    backbone.decoder[-1].register_forward_hook(lambda *call: finest.append(call[-1]))
    with torch.no_grad():
        backbone(image)
        unet, head = trained.network
        torch.testing.assert_close(head(finest[0]), head(unet(image)), rtol=1e-4, atol=1e-5)


def test_a_resnet_does_not_start_from_a_unet(tmp_path: Path) -> None:
    parser = parsed(BUNDLE, "train variants/resnet18", slice_weights=str(tmp_path / "a.pt"))
    with pytest.raises(SystemExit, match="the backbone is none"):
        parser.get_parsed_content("start_from_slices")


def test_boxes_are_computed_in_float32_where_maps_are_not() -> None:
    torch.manual_seed(0)
    detector = _detector().eval()
    slices = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        exact = detector.backbone(slices)
        package.compute_in_bfloat16(detector, "cpu")
        inner: list[torch.dtype] = []
        boxes: list[torch.dtype] = []
        first = next(m for m in detector.backbone.modules() if isinstance(m, nn.Conv2d))
        first.register_forward_hook(lambda *call: inner.append(call[-1].dtype))
        detector.rpn.register_forward_hook(lambda *call: boxes.append(call[-1][0][0].dtype))
        maps = detector.backbone(slices)
        detector(list(slices))
    assert set(inner) == {torch.bfloat16}
    assert set(boxes) == {torch.float32}
    for name, values in maps.items():
        assert values.dtype == torch.float32
        assert (values - exact[name]).abs().mean() < 0.05 * exact[name].abs().mean()


def test_slices_of_any_size_are_padded_to_what_the_backbone_takes() -> None:
    network = package.LesionClassifier(_detector()).eval()
    seen: list[torch.Tensor] = []
    network.detector.backbone.register_forward_pre_hook(lambda _, call: seen.append(call[0]))
    image = torch.rand(1, 3, 70, 100)
    with torch.no_grad():
        assert network(image).shape == (1, 3)
    assert seen[0].shape == (1, 3, 96, 128)
    assert torch.equal(seen[0][..., :70, :100], image)
    assert not seen[0][..., 70:, :].any()
    assert not seen[0][..., 100:].any()


@pytest.mark.parametrize("backbone", ["unet", "resnet18"])
def test_torchscript_equals_eager_for_any_number_of_slices(backbone: str) -> None:
    torch.manual_seed(0)
    network = package.LesionClassifier(_detector(backbone)).eval()
    script = torch.jit.script(network)
    for slices, rows, columns in ((1, 64, 64), (3, 80, 97)):
        image = torch.rand(slices, 3, rows, columns)
        with torch.no_grad():
            eager = network(image)
            assert eager.shape == (slices, 3)
            assert torch.allclose(eager, script(image), atol=1e-6)


@pytest.mark.parametrize("backbone", ["unet", "resnet18"])
def test_a_slice_is_classified_alone_as_among_others(backbone: str) -> None:
    """In double precision: rounding would swap boxes of nearly equal score in the ranking."""
    torch.manual_seed(0)
    network = package.LesionClassifier(_detector(backbone)).eval().double()
    image = torch.rand(2, 3, 80, 97).double()
    with torch.no_grad():
        alone = torch.cat([network(one[None]) for one in image])
        assert torch.allclose(network(image), alone, atol=1e-9)


def test_loss_is_binary_cross_entropy_of_each_class() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [20.0, -20.0, -20.0]])
    assert float(package.one_hot(logits, torch.tensor([1, 0]))) == pytest.approx(np.log(2) / 2)


def test_average_precision_of_masks_is_measured_and_can_be_measured_again(tmp_path: Path) -> None:
    masks = torch.zeros(4, 1, 20, 20)
    for number, (rows, columns) in enumerate([(5, 5), (5, 8), (4, 4), (9, 2)]):
        masks[number, 0, :rows, number * 5 : number * 5 + columns] = 1
    labels = torch.tensor([1, 1, 2, 2])
    truth = {"labels": labels, "masks": masks[:, 0].to(torch.uint8)}
    # Ground glass: both, the surer one half the size. Consolidation: one of two, as ground glass.
    found = {
        "labels": torch.tensor([1, 1, 1]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
        "masks": masks[:3].clone(),
    }
    found["masks"][0, 0, 3:] = 0
    metrics = package.DetectionMetrics(str(tmp_path))
    engine = Engine(lambda _, batch: batch)
    metrics.attach(engine)
    engine.state.batch = {"name": ["a.1"], "slice": [3]}
    engine.state.output = {"pred": [found], "label": [truth]}
    engine.fire_event(Events.ITERATION_COMPLETED)
    engine.fire_event(Events.EPOCH_COMPLETED)
    # Of the two classes, ground glass is found wholly at 0.5 and half of it at 0.75, behind one
    # that does not overlap enough.
    assert engine.state.metrics["ap_50"] == pytest.approx(0.5)
    assert engine.state.metrics["ap_75"] == pytest.approx(51 / 101 * 0.5 / 2)
    image = json.loads((tmp_path / "truth.json").read_text())["images"][0]
    assert (image["study"], image["slice"], image["patient"]) == ("a.1", 3, "a")
    again = average_precision(
        read_truth(tmp_path / "truth.json"),
        json.loads((tmp_path / "predictions.json").read_text()),
        "segm",
    )
    row = again[again["category"] == "all"].iloc[0]
    assert row["AP@0.5"] == pytest.approx(engine.state.metrics["ap_50"])
    assert row["AP@0.75"] == pytest.approx(engine.state.metrics["ap_75"])
    assert row["AP@[0.5:0.95]"] == pytest.approx(engine.state.metrics["ap_50_95"])


def test_figures_follow_the_papers_equations() -> None:
    from mask_rcnn_classifier.metrics import classification_figures

    figures = classification_figures([0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 0])
    assert figures["sensitivity COVID-19"] == pytest.approx(2 / 3)
    assert figures["ppv COVID-19"] == pytest.approx(2 / 3)
    assert figures["sensitivity common pneumonia"] == 1
    assert figures["ppv common pneumonia"] == 0.5
    assert figures["accuracy"] == pytest.approx(4 / 6)
    assert figures["f1"] == pytest.approx((3 * 2 / 3 + 1 * 2 / 3 + 2 * 2 / 3) / 6)


def test_the_illest_slices_speak_for_a_study() -> None:
    control, ill = [0.1, 0.1, 0.9], [0.8, 0.3, 0.1]
    assert package.aggregate_slices([control] * 5 + [ill] * 5) == (0, pytest.approx(ill))
    assert package.aggregate_slices([control] * 10)[0] == 2
    assert package.aggregate_slices([ill])[0] == 0


def test_a_study_is_measured_by_all_of_its_slices(tmp_path: Path) -> None:
    ill, healthy = [4.0, -4.0, -4.0], [-4.0, -4.0, 4.0]
    metrics = package.ClassificationMetrics(0.0, str(tmp_path))
    engine = Engine(lambda _, batch: batch)
    metrics.attach(engine)
    # One slice in thirty shows the disease; the others have no say in the figures of slices.
    engine.state.batch = {
        "name": ["a"] * 30,
        "slice": list(range(30)),
        "slice_mm": [5.0] * 30,
        "shows": [True] + [False] * 29,
    }
    logits = torch.tensor([ill] + [healthy] * 29)
    engine.state.output = {"pred": logits, "label": torch.zeros(30, dtype=torch.int64)}
    engine.fire_event(Events.ITERATION_COMPLETED)
    engine.fire_event(Events.EPOCH_COMPLETED)
    assert engine.state.metrics["accuracy"] == 1
    assert engine.state.metrics["study_accuracy"] == 0
    for file, expected in {"slices.csv": ["COVID-19"], "studies.csv": ["control"]}.items():
        with (tmp_path / file).open() as stream:
            assert [row["class"] for row in csv.DictReader(stream)] == expected


def test_slices_have_a_say_in_the_class_of_those_around_them() -> None:
    # 10 mm are two slices: of a Gaussian's weight, 0.2 fall on the slice itself.
    one = np.zeros((41, 3))
    one[20] = (5.0, 0.0, -5.0)
    smooth = package.smooth_along_slices(one, slice_mm=5.0, deviation_mm=10.0)
    assert smooth.sum(axis=0) == pytest.approx([5, 0, -5], abs=1e-6)
    places = np.arange(41) - 20
    assert np.sum(smooth[:, 0] / 5 * places**2) == pytest.approx(2**2, rel=0.02)
    assert smooth[20] == pytest.approx([0.9974, 0, -0.9974], abs=1e-3)
    assert np.array_equal(package.smooth_along_slices(one, 5.0, 0.0), one)


def test_each_study_is_smoothed_by_itself_in_the_order_of_its_slices(tmp_path: Path) -> None:
    metrics = package.ClassificationMetrics(10.0, str(tmp_path))
    engine = Engine(lambda _, batch: batch)
    metrics.attach(engine)
    order = np.random.default_rng(0).permutation(40)
    names = ["ab"[place // 20] for place in order]
    logits = torch.zeros(40, 3)
    # In "a" the tenth slice looks healthy among ill ones; "b" is healthy.
    for row, place in enumerate(order):
        healthy = place == 10 or place >= 20
        logits[row] = torch.tensor([-4.0, -4, 4]) if healthy else torch.tensor([4.0, -4, -4])
    engine.state.batch = {
        "name": names,
        "slice": [int(place) % 20 for place in order],
        "slice_mm": [5.0] * 40,
        "shows": [True] * 40,
    }
    labels = torch.tensor([0 if name == "a" else 2 for name in names])
    engine.state.output = {"pred": logits, "label": labels}
    engine.fire_event(Events.ITERATION_COMPLETED)
    engine.fire_event(Events.EPOCH_COMPLETED)
    assert engine.state.metrics["accuracy"] == 1
    assert engine.state.metrics["study_accuracy"] == 1


def test_whole_studies_keep_slices_that_show_no_disease(folder: Path) -> None:
    parser = parsed(BUNDLE, "train classify", dataset_dir=str(folder))
    read = parser.get_parsed_content("read_study")
    studies = package.find_studies(folder)
    some = package.read_slices(studies, read, lesions_only=False, smallest=20)
    whole = package.read_slices(studies, read, lesions_only=False, smallest=20, whole=True)
    assert all(item["shows"] for item in some)
    kept = [(item["name"], item["slice"]) for item in some]
    assert kept == [(item["name"], item["slice"]) for item in whole if item["shows"]]
    assert len(whole) > len(some)


def test_images_are_drawn_evenly_and_by_the_seed() -> None:
    slices = [{"category": min(n // 10, 2), "slice": n} for n in range(60)]
    drawn = package.draw_images(slices, 12, seed=3)
    assert Counter(item["category"] for item in drawn) == {0: 4, 1: 4, 2: 4}
    assert package.draw_images(slices, 12, seed=3) == drawn
    assert package.draw_images(slices, 12, seed=4) != drawn
    # A class that has too few leaves its part to the others.
    assert Counter(i["category"] for i in package.draw_images(slices, 50, 0)) == {
        0: 10,
        1: 10,
        2: 30,
    }
    assert package.draw_images(slices, None, 0) == package.draw_images(slices, 600, 0) == slices


def test_both_stages_train_evaluate_and_infer(folder: Path, tmp_path: Path) -> None:
    options = ("--dataset_dir", folder, *SMALL)
    first, second = tmp_path / "first", tmp_path / "second"
    done = run_configs(
        BUNDLE,
        "train",
        *(*options, "--output_dir", first, "--max_epochs", 6, "--val_interval", 6),
        *("--bfloat16", True),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    steps = printed_losses(done)
    assert np.mean(steps[-4:]) < 0.9 * np.mean(steps[:4])
    assert "ap_50" in done.stdout + done.stderr
    done = run_configs(
        BUNDLE,
        "train evaluate",
        *(*options, "--checkpoint", first / "model.pt", "--output_dir", tmp_path / "detected"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    truth = json.loads((tmp_path / "detected" / "truth.json").read_text())
    assert {image["study"] for image in truth["images"]} == {"p3-covid19"}
    done = run_configs(
        BUNDLE,
        "train classify",
        *(*options, "--output_dir", second, "--max_epochs", 2, "--val_interval", 2),
        *("--segmentation_checkpoint", first / "model.pt", "--bfloat16", True),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    copied = torch.load(second / "model.pt", weights_only=True)
    source = torch.load(first / "model.pt", weights_only=True)
    key = "roi_heads.box_head.fc6.weight"
    assert torch.equal(copied[f"detector.{key}"], source[key])
    # The classifier's own box branch has begun there and learned.
    learned = copied["box_head.fc6.weight"]
    assert 0 < (learned - source[key]).abs().max() < 0.1
    weights = ("--checkpoint", second / "model.pt")
    done = run_configs(
        BUNDLE,
        "train classify evaluate",
        *(*options, *weights, "--output_dir", tmp_path / "figures", "--evaluate_all", True),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with (tmp_path / "figures" / "summary.csv").open() as stream:
        (figures,) = csv.DictReader(stream)
    assert {"sensitivity COVID-19", "ppv control", "f1"} <= set(figures)
    for file, figure in {"slices.csv": "accuracy", "studies.csv": "study_accuracy"}.items():
        with (tmp_path / "figures" / file).open() as stream:
            right = [row["class"] == row["truth"] for row in csv.DictReader(stream)]
        assert np.mean(right) == pytest.approx(float(figures[figure]))
    done = run_configs(
        BUNDLE,
        "inference",
        *("--dataset_dir", folder, *weights, "--output_dir", tmp_path / "results"),
        *("--slice_size", "[64,64]", "--spacing_mm", "[5.6,5.6]"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    done = run_configs(
        BUNDLE,
        "train classify variants/s variants/fine_tune",
        *(*options, *weights, "--output_dir", tmp_path / "tuned", "--images", 4),
        # A step of no length: what was loaded is what is saved.
        *("--learning_rate", 0.0, "--max_epochs", 1, "--val_interval", 1),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(printed_losses(done)) == 2
    tuned = torch.load(tmp_path / "tuned" / "model.pt", weights_only=True)
    assert all(torch.equal(tuned[name], value) for name, value in copied.items())
    with (tmp_path / "results" / "studies.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(DISEASES)
    assert {row["class"] for row in rows} <= set(package.CLASSES)
    for row in rows:
        ct = nibabel.Nifti1Image.from_filename(folder / row["study"])
        name = row["study"].replace(".nii.gz", "_opacity_seg.nii.gz")
        opacity = nibabel.Nifti1Image.from_filename(tmp_path / "results" / name)
        assert opacity.shape == ct.shape
        assert np.allclose(opacity.affine, ct.affine, atol=1e-3)


@pytest.mark.parametrize("configs", ["train", "train classify", "train evaluate", "inference"])
def test_an_empty_folder_is_named_in_one_line(configs: str, tmp_path: Path) -> None:
    done = run_configs(BUNDLE, configs, "--dataset_dir", tmp_path, cwd=tmp_path)
    assert_refused_in_one_line(done, str(tmp_path))


def test_evaluation_names_missing_weights_in_one_line(folder: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none.pt"
    done = run_configs(
        BUNDLE,
        "train evaluate",
        *("--dataset_dir", folder, *SMALL, "--checkpoint", missing),
        cwd=tmp_path,
    )
    assert_refused_in_one_line(done, str(missing))


def test_an_unknown_diagnosis_is_named(tmp_path: Path) -> None:
    for suffix in ("_ct", "_opacity_seg"):
        (tmp_path / f"a{suffix}.nii.gz").touch()
    (tmp_path / "diagnoses.csv").write_text("name,diagnosis\na,asthma\n")
    with pytest.raises(SystemExit, match="asthma"):
        package.find_studies(tmp_path)
