"""Readers of published collections, on miniature trees of the publishers' layout."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.data import PydicomReader, load_decathlon_datalist
from monai.transforms import LoadImage, LoadImaged
from PIL import Image

from tools.datasets.published import COLLECTIONS, Case, assign_folds, build_datalist
from tools.datasets.published.__main__ import main
from tools.datasets.published.covidx_ct import patient_of
from tools.datasets.published.medseg9 import MEDSEG9
from tools.datasets.published.tree import write_tree
from tools.datasets.tree import DatasetError
from tools.phantom import Grid, build_phantom, write_dicom_series, write_nifti


def nifti(path: Path, shape: tuple[int, ...] = (3, 2, 2)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.int16), np.eye(4)), path)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((3, 2), 7, np.uint8)).save(path)


def meta_image(folder: Path, name: str, data: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.mhd").write_text(f"ObjectType = Image\nElementDataFile = {data}\n")
    (folder / data).write_bytes(b"")


def mosmed(root: Path) -> None:
    for category, count in enumerate((4, 5, 3, 2, 2)):
        for i in range(count):
            nifti(root / "studies" / f"CT-{category}" / f"study_0{category}{i:02d}.nii.gz")
    nifti(root / "masks" / "study_0101_mask.nii.gz")
    nifti(root / "masks" / "study_0102_mask.nii.gz")


def covid19_ct_seg20(root: Path) -> None:
    for name in ("coronacases_001", "radiopaedia_10_85902_1", "radiopaedia_10_85902_3"):
        for folder in ("COVID-19-CT-Seg_20cases", "Lung_Mask", "Infection_Mask"):
            nifti(root / folder / f"{name}.nii.gz")
    nifti(root / "Lung_and_Infection_Mask" / "coronacases_001.nii.gz")


def medseg9(root: Path) -> None:
    for folder in ("rp_im", "rp_lung_msk", "rp_msk"):
        for name in ("1", "2"):
            nifti(root / folder / f"{name}.nii.gz")


def medseg100(root: Path) -> None:
    for name in ("tr_im", "tr_mask", "tr_lungmasks_updated"):
        nifti(root / f"{name}.nii.gz", (3, 2, 21))


def nsclc(root: Path) -> None:
    for number in (1, 2, 3):
        study = root / "NSCLC-Radiomics" / f"LUNG1-00{number}" / "01-01-2014-NA"
        for file in ("0-NA/1-1.dcm", "0-NA/1-2.dcm", "3-Segmentation/1-1.dcm"):
            (study / file).parent.mkdir(parents=True, exist_ok=True)
            (study / file).touch()
    for name in ("LUNG1-001", "LUNG1-003"):
        nifti(root / "Thoracic_Cavities" / name / f"{name}_thor_cav_primary_reviewer.nii.gz")
    nifti(root / "Effusions" / "LUNG1-001" / "LUNG1-001_effusion_first_reviewer.nii.gz")


def luna16(root: Path) -> None:
    for subset, name in ((0, "1.3.6.1"), (1, "1.3.6.2")):
        meta_image(root / f"subset{subset}", name, f"{name}.raw")
        meta_image(root / "seg-lungs-LUNA16", name, f"{name}.zraw")


def cncb(root: Path) -> None:
    for scan in ("CP/7/3153", "CP/8/3154", "NCP/7/1328", "NCP/7/1329", "Normal/9/22"):
        for number in range(3):
            picture(root / scan / f"{number:04d}.png")
    lines = ("imgpath", "NCP/7/1328/0002.png", "NCP/7/1328/0001.png", "NCP/99/1/0000.png")
    (root / "lesions_slices.csv").write_text("\n".join(lines) + "\n")
    (root / "metadata.csv").write_text("patient_id,scan_id\n")


def cncb_lesions(root: Path) -> None:
    for patient in ("0", "1"):
        picture(root / "ct_lesion_seg" / "image" / patient / "12.jpg")
        picture(root / "ct_lesion_seg" / "mask" / patient / "12.png")


def covidx_ct(root: Path) -> None:
    splits = {
        "train": ("NCP_1_10_0000.png 2", "NCP_1_11_0000.png 2", "CP_1_12_0003.png 1"),
        "val": ("Normal_5_13_0000.png 0",),
        "test": ("HUST-Patient1-0060.png 2",),
    }
    for split, lines in splits.items():
        table = root / f"{split}_COVIDx_CT-2A.txt"
        root.mkdir(parents=True, exist_ok=True)
        table.write_text("".join(f"{line} 9 94 512 405\n" for line in lines))
        for line in lines:
            picture(root / "2A_images" / line.split()[0])


def ictcf(root: Path) -> None:
    for number in (1, 2, 3):
        picture(root / f"Patient {number}" / "CT" / "IMG-0001-00001.jpg")
        picture(root / f"Patient {number}" / "CT" / "IMG-0001-00002.jpg")
    lines = (",Age,Morbidity outcome", "Patient 1,49,Mild", "Patient 2,50,Control")
    (root / "table.csv").write_text("\n".join(lines))


def kaggle_lungs(root: Path) -> None:
    for name in ("ID_0000_Z_0142", "ID_0001_Z_0146"):
        picture(root / "2d_images" / f"{name}.tif")
        picture(root / "2d_masks" / f"{name}.tif")


def kaggle_lungs_3d(root: Path) -> None:
    for name in ("IMG_0002", "MASK_0002", "IMG_0059", "MASK_0059"):
        nifti(root / "3d_images" / f"{name}.nii.gz")


TREES: dict[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (
        mosmed,
        covid19_ct_seg20,
        medseg9,
        medseg100,
        nsclc,
        luna16,
        cncb,
        cncb_lesions,
        covidx_ct,
        ictcf,
        kaggle_lungs,
        kaggle_lungs_3d,
    )
}


def cases_of(name: str, root: Path) -> list[Case]:
    return list(COLLECTIONS[name].read(root))


def write(name: str, root: Path, output: Path, *more: str) -> int:
    return main([name, "--root", str(root), "--output", str(output), "--folds", "2", *more])


def test_every_collection_has_a_miniature() -> None:
    assert set(TREES) == set(COLLECTIONS)


@pytest.mark.parametrize("name", TREES)
def test_datalists_load_and_keep_patients_in_one_fold(name: str, tmp_path: Path) -> None:
    root, output = tmp_path / "tree", tmp_path / "made" / "datalist.json"
    TREES[name](root)
    for label in COLLECTIONS[name].supervision:
        assert write(name, root, output, "--label", label) == 0
        is_mask = label != "category"
        items = load_decathlon_datalist(output, is_mask, "training", root)
        folds: dict[str, set[int]] = {}
        for item in items:
            folds.setdefault(item["patient"], set()).add(item["fold"])
            paths = item["image"] if isinstance(item["image"], list) else [item["image"]]
            masks = [item[key] for key in ("lung", "lesion") if key in item]
            assert paths
            assert all(Path(path).is_relative_to(root) for path in paths + masks)
            assert all(Path(path).exists() for path in paths + masks)
            assert item["label"] == item[label]
            assert item["patient"].startswith(f"{name}:")
        assert all(len(fold) == 1 for fold in folds.values())
        assert set.union(*folds.values()) == {0, 1}
        described = json.loads(output.read_text())
        assert described["numTraining"] == len(items)
        assert described["licence"]
        values = set(described["labels"])
        assert is_mask or {str(item["label"]) for item in items} <= values
        assert not Path(described["training"][0].get("lung", "")).is_absolute()


MISSING = [
    ("mosmed", "masks", "masks"),
    ("mosmed", "studies/CT-3", "studies/CT-3"),
    ("mosmed", "studies/CT-1/study_0101.nii.gz", "studies holds no study_0101"),
    (
        "covid19_ct_seg20",
        "Infection_Mask/radiopaedia_10_85902_1.nii.gz",
        "Infection_Mask/radiopaedia_10_85902_1.nii.gz",
    ),
    ("covid19_ct_seg20", "COVID-19-CT-Seg_20cases", "COVID-19-CT-Seg_20cases"),
    ("medseg9", "rp_lung_msk/2.nii.gz", "rp_lung_msk/2.nii.gz"),
    ("medseg100", "tr_lungmasks_updated.nii.gz", "tr_lungmasks_updated.nii.gz"),
    ("nsclc", "Thoracic_Cavities", "Thoracic_Cavities"),
    (
        "nsclc",
        "Thoracic_Cavities/LUNG1-001/LUNG1-001_thor_cav_primary_reviewer.nii.gz",
        "Thoracic_Cavities/LUNG1-001/LUNG1-001_thor_cav_primary_reviewer.nii.gz",
    ),
    ("nsclc", "NSCLC-Radiomics/LUNG1-002/01-01-2014-NA", "LUNG1-002 holds no .dcm"),
    ("luna16", "seg-lungs-LUNA16/1.3.6.2.mhd", "seg-lungs-LUNA16/1.3.6.2.mhd"),
    ("luna16", "seg-lungs-LUNA16/1.3.6.2.zraw", "seg-lungs-LUNA16/1.3.6.2.zraw"),
    ("luna16", "subset1/1.3.6.2.raw", "subset1/1.3.6.2.raw"),
    ("cncb", "lesions_slices.csv", "lesions_slices.csv"),
    ("cncb", "Normal", "Normal"),
    ("cncb", "NCP/7/1328/0001.png", "NCP/7/1328/0001.png"),
    ("cncb_lesions", "ct_lesion_seg/mask/1/12.png", "ct_lesion_seg/mask/1/12.png"),
    ("covidx_ct", "val_COVIDx_CT-2A.txt", "holds no val_COVIDx"),
    ("covidx_ct", "2A_images/HUST-Patient1-0060.png", "2A_images/HUST-Patient1-0060.png"),
    ("covidx_ct", "2A_images", "NCP_1_10_0000.png"),
    ("ictcf", "table.csv", "holds no *.csv"),
    ("ictcf", "Patient 2/CT", "Patient 2/CT"),
    ("kaggle_lungs", "2d_masks/ID_0001_Z_0146.tif", "2d_masks/ID_0001_Z_0146.tif"),
    ("kaggle_lungs_3d", "3d_images/MASK_0059.nii.gz", "3d_images/MASK_0059.nii.gz"),
]


@pytest.mark.parametrize(("name", "gone", "told"), MISSING)
def test_what_is_missing_is_named_in_one_line(
    name: str, gone: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TREES[name](tmp_path)
    target = tmp_path / gone
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert write(name, tmp_path, tmp_path / "datalist.json") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert not (tmp_path / "datalist.json").exists()


def test_mosmed_gives_categories_and_the_masks_there_are(tmp_path: Path) -> None:
    mosmed(tmp_path)
    cases = cases_of("mosmed", tmp_path)
    assert Counter(c.category for c in cases) == {0: 4, 1: 5, 2: 3, 3: 2, 4: 2}
    assert {c.patient: c.lesion for c in cases if c.lesion} == {
        name: tmp_path / "masks" / f"{name}_mask.nii.gz" for name in ("study_0101", "study_0102")
    }


def test_files_may_have_been_unpacked_by_a_browser(tmp_path: Path) -> None:
    for folder in ("rp_im", "rp_lung_msk", "rp_msk"):
        nifti(tmp_path / folder / "1.nii")
        (tmp_path / folder / "._1.nii").touch()
    (case,) = cases_of("medseg9", tmp_path)
    assert case.patient == "1"
    assert case.lung == tmp_path / "rp_lung_msk" / "1.nii"


def test_series_of_one_radiopaedia_patient_stay_together(tmp_path: Path) -> None:
    covid19_ct_seg20(tmp_path)
    cases = cases_of("covid19_ct_seg20", tmp_path)
    assert [c.patient for c in cases] == ["coronacases_001", "radiopaedia_10", "radiopaedia_10"]
    assert "lung_and_lesion" in cases[0].extra
    assert "lung_and_lesion" not in cases[1].extra


def test_slices_are_grouped_by_block_or_by_the_publishers_table(tmp_path: Path) -> None:
    medseg100(tmp_path)
    cases = cases_of("medseg100", tmp_path)
    assert [c.extra["slice"] for c in cases] == list(range(21))
    assert Counter(c.patient for c in cases) == {"block-00": 10, "block-01": 10, "block-02": 1}
    rows = "".join(f"{i + 1},{i // 2}\n" for i in range(21))
    (tmp_path / "slices.csv").write_text("Slice,SIRM case\n" + rows)
    patients = [c.patient for c in cases_of("medseg100", tmp_path)]
    assert patients[:3] == ["case-0", "case-0", "case-1"]
    (tmp_path / "slices.csv").write_text(rows.replace("7,", "70,"))
    with pytest.raises(DatasetError, match="to each of 21 slices"):
        cases_of("medseg100", tmp_path)


@pytest.mark.parametrize("damage", ["shape", "text"])
def test_slice_volumes_must_be_nifti_of_one_shape(damage: str, tmp_path: Path) -> None:
    medseg100(tmp_path)
    if damage == "shape":
        nifti(tmp_path / "tr_mask.nii.gz", (3, 2, 20))
    else:
        (tmp_path / "tr_mask.nii.gz").write_text("<html>")
    with pytest.raises(DatasetError, match=r"tr_mask\.nii\.gz"):
        cases_of("medseg100", tmp_path)


def test_the_ct_series_is_found_among_others(tmp_path: Path) -> None:
    nsclc(tmp_path)
    first, second, _ = cases_of("nsclc", tmp_path)
    assert isinstance(first.image, Path)
    assert first.image.name == "0-NA"
    assert first.extra["effusion"].exists()
    assert second.lung is None


def test_monai_opens_a_folder_with_a_series(tmp_path: Path) -> None:
    nsclc(tmp_path)
    series = tmp_path / "NSCLC-Radiomics" / "LUNG1-001" / "01-01-2014-NA" / "0-NA"
    shutil.rmtree(series)
    write_dicom_series(build_phantom(Grid.axial((3, 8, 8), (50, 50, 50)), seed=1), series)
    first, *_ = cases_of("nsclc", tmp_path)
    assert LoadImage(reader=PydicomReader, image_only=True)(first.image).shape == (8, 8, 3)


def test_luna16_tells_the_publishers_folds(tmp_path: Path) -> None:
    luna16(tmp_path)
    assert [c.extra["subset"] for c in cases_of("luna16", tmp_path)] == [0, 1]


def test_cncb_tells_slices_with_lesions_and_patients_of_each_class(tmp_path: Path) -> None:
    cncb(tmp_path)
    cases = cases_of("cncb", tmp_path)
    assert Counter(c.patient for c in cases) == {"CP-7": 1, "CP-8": 1, "NCP-7": 2, "Normal-9": 1}
    assert [c.extra["lesion_slices"] for c in cases if c.patient == "NCP-7"] == [[1, 2], []]
    (tmp_path / "lesions_slices.csv").write_text("imgpath\nNCP/7\n")
    with pytest.raises(DatasetError, match="line 2 "):
        cases_of("cncb", tmp_path)


def test_covidx_keeps_the_publishers_splits(tmp_path: Path) -> None:
    covidx_ct(tmp_path)
    assert write("covidx_ct", tmp_path, tmp_path / "list.json") == 0
    datalist = json.loads((tmp_path / "list.json").read_text())
    assert [len(datalist[s]) for s in ("training", "validation", "test")] == [3, 1, 1]
    assert "fold" not in datalist["test"][0]
    assert datalist["test"][0]["bbox"] == [9, 94, 512, 405]
    assert datalist["numTest"] == 1


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("CP_1769_3516_0011.png", "CP_1769"),
        ("LIDC-IDRI-0001-1.3.6.1.4-0012.png", "LIDC-IDRI-0001"),
        ("volume-covid19-A-0047_1-0012.png", "volume-covid19-A-0047"),
        ("radiopaedia_10_85902_1-0012.png", "radiopaedia_10"),
        ("coronacases_001-0012.png", "coronacases_001"),
        ("137covid_patient1_SR_2_IM00012.png", "137covid_patient1"),
        ("HUST-Patient1-0060.png", "HUST-Patient1"),
    ],
)
def test_covidx_slices_name_their_patients(name: str, patient: str) -> None:
    assert patient_of(name) == patient


@pytest.mark.parametrize("line", ["a.png 3 0 0 1 1", "a.png 1 0 0", "a.png x 0 0 1 1", ""])
def test_covidx_lines_are_checked(line: str, tmp_path: Path) -> None:
    covidx_ct(tmp_path)
    (tmp_path / "val_COVIDx_CT-2A.txt").write_text(f"Normal_5_13_0000.png 0 9 94 512 405\n{line}\n")
    with pytest.raises(DatasetError, match="line 2 "):
        cases_of("covidx_ct", tmp_path)


def test_covidx_versions_are_not_mixed(tmp_path: Path) -> None:
    covidx_ct(tmp_path)
    (tmp_path / "test_COVIDx-CT.txt").touch()
    with pytest.raises(DatasetError, match="one version"):
        cases_of("covidx_ct", tmp_path)


def test_ictcf_patients_without_an_outcome_have_no_category(tmp_path: Path) -> None:
    ictcf(tmp_path)
    categories = COLLECTIONS["ictcf"].categories
    found = [c.category for c in cases_of("ictcf", tmp_path)]
    assert found == [categories.index("Mild"), categories.index("Control"), None]
    for table, word in ((",Age\nPatient 1,3", "Morbidity"), (",Morbidity outcome\nP,Odd", "Odd")):
        (tmp_path / "table.csv").write_text(table)
        with pytest.raises(DatasetError, match=word):
            cases_of("ictcf", tmp_path)


def many_patients() -> list[Case]:
    """100 patients with one or two cases; categories of 60, 38 and 2 patients."""
    category = [0] * 60 + [1] * 38 + [2] * 2
    return [
        Case(patient=f"{p:03d}", image=Path(f"{p}-{scan}"), category=category[p])
        for p in range(100)
        for scan in range(1 + p % 2)
    ]


def test_folds_are_stratified_and_depend_on_the_seed_alone() -> None:
    cases = many_patients()
    folds = assign_folds(cases, 5, seed=3)
    assert set(Counter(folds.values()).values()) == {20}
    per_category: dict[int | None, Counter[int]] = {}
    for case in cases:
        if case.image.name.endswith("-0"):
            per_category.setdefault(case.category, Counter())[folds[case.patient]] += 1
    assert set(per_category[0].values()) == {12}
    assert set(per_category[1].values()) == {7, 8}
    assert list(per_category[2].values()) == [1, 1]
    assert assign_folds(reversed(cases), 5, seed=3) == folds
    assert assign_folds(cases, 5, seed=4) != folds


@pytest.mark.parametrize("folds", [1, 101])
def test_folds_need_patients(folds: int) -> None:
    with pytest.raises(DatasetError, match="100 patients"):
        assign_folds(many_patients(), folds, seed=0)


def test_a_label_that_no_case_has_is_an_error(tmp_path: Path) -> None:
    nsclc(tmp_path)
    cases = [c for c in cases_of("nsclc", tmp_path) if c.lung is None]
    with pytest.raises(DatasetError, match="no case of nsclc with a lung"):
        build_datalist(COLLECTIONS["nsclc"], cases, tmp_path, label="lung")


def test_monai_opens_what_the_datalist_names(tmp_path: Path) -> None:
    mosmed(tmp_path / "m")
    write("mosmed", tmp_path / "m", tmp_path / "m.json", "--label", "lesion")
    items = load_decathlon_datalist(tmp_path / "m.json", True, "training", tmp_path / "m")
    assert len(items) == 2
    loaded = LoadImaged(keys=("image", "label"))(items[0])
    assert loaded["image"].shape == loaded["label"].shape == (3, 2, 2)
    cncb(tmp_path / "c")
    write("cncb", tmp_path / "c", tmp_path / "c.json")
    items = load_decathlon_datalist(tmp_path / "c.json", False, "training", tmp_path / "c")
    assert LoadImaged(keys="image")(items[0])["image"].shape[-1] == 3


def test_the_command_tells_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mosmed(tmp_path)
    assert write("mosmed", tmp_path, tmp_path / "one.json") == 0
    told = capsys.readouterr()
    assert "16 of 1110 published cases of 16 patients" in told.out
    assert told.err == ""
    assert write("mosmed", tmp_path, tmp_path / "two.json") == 0
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert write("mosmed", tmp_path, tmp_path / "two.json", "--seed", "1") == 0
    assert (tmp_path / "one.json").read_bytes() != (tmp_path / "two.json").read_bytes()


def test_patients_in_two_published_splits_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    covidx_ct(tmp_path)
    picture(tmp_path / "2A_images" / "NCP_1_10_0001.png")
    with (tmp_path / "test_COVIDx_CT-2A.txt").open("a") as table:
        table.write("NCP_1_10_0001.png 2 0 0 1 1\n")
    assert write("covidx_ct", tmp_path, tmp_path / "list.json") == 0
    assert "1 patients are in two of the publisher's splits: NCP_1" in capsys.readouterr().out


def test_a_tree_holds_binary_masks_and_keeps_a_patients_cases_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    covid19_ct_seg20(tmp_path / "c")
    tree = ("--tree", str(tmp_path / "tree"), "--folds", "2", "--label", "lesion")
    assert main(["covid19_ct_seg20", "--root", str(tmp_path / "c"), *tree]) == 0
    names = ("coronacases-001", "radiopaedia-10", "radiopaedia-10.1")
    folder = tmp_path / "tree" / "covid19_ct_seg20"
    assert {path.name for path in folder.iterdir()} == {
        f"covid19-ct-seg20-{name}_{kind}.nii.gz"
        for name in names
        for kind in ("ct", "lung", "lesion")
    }
    assert main(["covid19_ct_seg20", "--root", str(tmp_path / "c"), *tree, "--fold", "1"]) == 0
    kept_out = re.findall(r"--held_out \"(\[.*\])\"", capsys.readouterr().out)
    assert sorted(map(ast.literal_eval, kept_out)) == [
        ["covid19-ct-seg20-coronacases-001"],
        ["covid19-ct-seg20-radiopaedia-10"],
    ]


def test_effusion_is_no_lesion_of_a_tree(tmp_path: Path) -> None:
    medseg9(tmp_path)
    labels = np.array([[[0, 1], [2, 3]]], np.int16)
    for name in ("1", "2"):
        nifti(tmp_path / "rp_im" / f"{name}.nii.gz", labels.shape)
        nifti(tmp_path / "rp_lung_msk" / f"{name}.nii.gz", labels.shape)
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "rp_msk" / f"{name}.nii.gz")
    for case, name in write_tree(MEDSEG9, cases_of("medseg9", tmp_path), tmp_path / "tree"):
        assert name == f"medseg9-{case.patient}"
    lesion = nibabel.load(tmp_path / "tree" / "medseg9-1_lesion.nii.gz").get_fdata()
    assert lesion.tolist() == [[[0, 1], [1, 0]]]
    nifti(tmp_path / "rp_msk" / "1.nii.gz", (3, 3, 3))
    with pytest.raises(DatasetError, match=r"rp_msk/1\.nii\.gz has the shape"):
        list(write_tree(MEDSEG9, cases_of("medseg9", tmp_path), tmp_path / "tree"))


def test_a_dicom_series_becomes_a_volume_of_a_tree(tmp_path: Path) -> None:
    phantom = build_phantom(Grid.axial((3, 8, 8), (50, 50, 50)), seed=1)
    write_dicom_series(phantom, tmp_path / "series")
    list(write_tree(COLLECTIONS["nsclc"], [Case("a b", tmp_path / "series")], tmp_path / "tree"))
    write_nifti(phantom, tmp_path, "truth")
    image, truth = (
        nibabel.as_closest_canonical(nibabel.load(path))
        for path in (tmp_path / "tree" / "nsclc-a-b_ct.nii.gz", tmp_path / "truth_ct.nii.gz")
    )
    assert np.array_equal(image.get_fdata(), truth.get_fdata())
    assert np.allclose(image.affine, truth.affine)


def test_a_tree_and_a_datalist_keep_out_the_same_patients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mosmed(tmp_path / "m")
    both = ("--tree", str(tmp_path / "tree"), "--label", "lesion", "--fold", "1", "--seed", "3")
    assert write("mosmed", tmp_path / "m", tmp_path / "list.json", *both) == 0
    (kept_out,) = re.findall(r"--held_out \"(\[.*\])\"", capsys.readouterr().out)
    items = json.loads((tmp_path / "list.json").read_text())["training"]
    wanted = [item["patient"] for item in items if item["fold"] == 1]
    assert wanted
    assert ast.literal_eval(kept_out) == [re.sub("[:_]", "-", name) for name in wanted]


@pytest.mark.parametrize(
    ("collection", "options", "told"),
    [
        ("mosmed", ("--label", "category"), "a tree holds masks"),
        ("mosmed", ("--label", "lesion", "--fold", "2"), "--fold is 0 to 1, got 2"),
        ("mosmed", ("--label", "lesion", "--fold", "-1"), "--fold is 0 to 1, got -1"),
        ("mosmed", ("--label", "lesion", "--folds", "9"), "2 patients cannot be dealt to 9 folds"),
        ("medseg100", ("--label", "lesion"), "holds slices, not volumes"),
        ("mosmed", ("--label", "lesion", "--tree", "a_file"), "--tree a_file is not a folder"),
        ("mosmed", ("--label", "lesion", "--output", "c"), "--output c is a folder; name a file"),
    ],
)
def test_nothing_is_written_where_an_option_is_wrong(
    collection: str,
    options: tuple[str, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a_file").touch()
    TREES[collection](Path("c"))
    before = sorted(Path().rglob("*"))
    usual = ("--tree", "tree", "--output", "list.json", "--folds", "2")
    assert main([collection, "--root", "c", *usual, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert sorted(Path().rglob("*")) == before


def test_list_shows_terms_and_citations(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    told = capsys.readouterr().out
    for collection in COLLECTIONS.values():
        assert f"\n{collection.name}: " in f"\n{told}"
    assert told.count("  terms: ") == told.count("  cite: ") == len(COLLECTIONS)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "--list"),
        (["influenza"], "influenza"),
        (["mosmed", "--root", "/nowhere"], "--output"),
        (["mosmed", "--root", "/nowhere", "--output", "x.json"], "/nowhere"),
        (["mosmed", "--root", ".", "--output", "x.json", "--label", "lung"], "category or lesion"),
        (["mosmed", "--root", ".", "--output", "x.json", "--folds", "many"], "--folds"),
        (["mosmed", "--root", ".", "--output", "x.json"], "masks"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert word in line
    assert not (tmp_path / "x.json").exists()


def test_the_module_runs_and_cannot_write_over_a_folder(tmp_path: Path) -> None:
    medseg9(tmp_path)
    command = [sys.executable, "-m", "tools.datasets.published", "medseg9", "--folds", "2"]
    done = subprocess.run(
        [*command, "--root", str(tmp_path), "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
