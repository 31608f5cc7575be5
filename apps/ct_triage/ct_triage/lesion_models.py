"""The lesion models that a configuration can choose from."""

from pathlib import Path

from ct_triage.configuration import Configuration
from ct_triage.errors import ConfigurationError
from ct_triage.lesions import LesionModel, MultitaskLesionModel, SliceLesionModel
from ct_triage.volume_lesions import EnsembleLesionModel, VolumeLesionModel

# By the name of the bundle, which is the name of its folder.
LESION_MODELS: dict[str, type[SliceLesionModel]] = {
    "lesion_segmentation_2d": SliceLesionModel,
    "lesion_segmentation_3d": VolumeLesionModel,
    "lesion_ensemble": EnsembleLesionModel,
    "multitask_triage": MultitaskLesionModel,
}


def load_lesion_model(folder: Path, configuration: Configuration) -> LesionModel:
    """Load the lesion model that a configuration names, with the threshold that it sets.

    Parameters
    ----------
    folder : Path
        Holds the bundles by name.
    configuration : Configuration
        Names the bundle, the threshold and the smallest lesion.

    Raises
    ------
    ConfigurationError
        If there is no such kind of lesion model, it does not identify although it should, or has
        no use for the threshold.
    ModelError
        If the bundle is missing or broken.
    """
    name = configuration.models.lesions
    kind = LESION_MODELS.get(name)
    if kind is None:
        raise ConfigurationError(
            f"models.lesions: no lesion model is called {name}; choose one of"
            f" {', '.join(LESION_MODELS)}"
        )
    if configuration.identification and not kind.identifies:
        able = ", ".join(key for key, model in LESION_MODELS.items() if model.identifies)
        raise ConfigurationError(
            f"identification: {name} does not identify COVID-19; set models.lesions to {able} or"
            " identification to false"
        )
    return kind.load(
        folder / name, configuration.lesion_threshold, configuration.thresholds.min_lesion_ml
    )
