"""The lesion models that a configuration can choose from."""

from collections.abc import Sequence
from pathlib import Path

from ct_triage.configuration import Configuration
from ct_triage.errors import ConfigurationError
from ct_triage.lesions import MultitaskLesionModel, SliceLesionModel
from ct_triage.mean_lesions import MeanLesionModel
from ct_triage.volume_lesions import EnsembleLesionModel, VolumeLesionModel

# By the name of the bundle, which is the name of its folder.
LESION_MODELS: dict[str, type[SliceLesionModel]] = {
    "lesion_segmentation_2d": SliceLesionModel,
    "lesion_segmentation_3d": VolumeLesionModel,
    "lesion_ensemble": EnsembleLesionModel,
    "multitask_triage": MultitaskLesionModel,
}


def load_lesion_model(folder: Path, configuration: Configuration) -> SliceLesionModel:
    """Load the lesion model that a configuration names, with the threshold that it sets.

    Of several, joined by +, the mean is taken; see `MeanLesionModel`.

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
    names = configuration.models.lesion_bundles
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
    return load_bundles(
        [(kind, folder / name) for name, kind in kinds.items()],
        configuration.models.lesion_weights,
        configuration.lesion_threshold,
        configuration.thresholds.min_lesion_ml,
    )


def load_bundles(
    bundles: Sequence[tuple[type[SliceLesionModel], Path]],
    weights: Sequence[int],
    threshold: float | None,
    min_lesion_ml: float,
) -> SliceLesionModel:
    """Load one lesion bundle, or several and take their mean.

    Parameters
    ----------
    bundles : sequence of (kind, folder)
        The class of each bundle, a value of `LESION_MODELS`, and its folder.
    weights, threshold, min_lesion_ml
        See :meth:`SliceLesionModel.load` and :meth:`MeanLesionModel.of`.

    Raises
    ------
    ConfigurationError
        If the threshold is of no use, or there is no mean of these models.
    ModelError
        If a bundle is missing or broken.
    """
    if len(bundles) == 1:
        ((kind, folder),) = bundles
        return kind.load(folder, threshold, min_lesion_ml)
    models = [kind.load(folder, None, min_lesion_ml) for kind, folder in bundles]
    return MeanLesionModel.of(models, weights, threshold, min_lesion_ml)
