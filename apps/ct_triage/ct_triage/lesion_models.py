"""The lesion models that a configuration can choose from."""

from pathlib import Path

from ct_triage.configuration import Configuration
from ct_triage.errors import ConfigurationError
from ct_triage.lesions import LesionModel, MultitaskLesionModel, SliceLesionModel
from ct_triage.mean_lesions import MeanLesionModel
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

    Of several, joined by +, the mean is taken.

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
    names = configuration.models.lesions.split("+")
    unknown = [name for name in names if name not in LESION_MODELS]
    if unknown:
        raise ConfigurationError(
            f"models.lesions: no lesion model is called {unknown[0]}; choose one of"
            f" {', '.join(LESION_MODELS)}, or several joined by +"
        )
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f"models.lesions: {configuration.models.lesions} names a model twice; leave one out"
        )
    kinds = {name: LESION_MODELS[name] for name in names}
    if configuration.identification and not any(kind.identifies for kind in kinds.values()):
        able = ", ".join(key for key, model in LESION_MODELS.items() if model.identifies)
        raise ConfigurationError(
            f"identification: {configuration.models.lesions} does not identify COVID-19; set"
            f" models.lesions to {able}, alone or joined to others by +, or identification to false"
        )
    threshold, min_lesion_ml = (
        configuration.lesion_threshold,
        configuration.thresholds.min_lesion_ml,
    )
    if len(names) == 1:
        return kinds[names[0]].load(folder / names[0], threshold, min_lesion_ml)
    models = tuple(kind.load(folder / name, None, min_lesion_ml) for name, kind in kinds.items())
    return MeanLesionModel.of(models, threshold, min_lesion_ml)
