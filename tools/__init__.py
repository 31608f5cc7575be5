"""Tools around the models: phantoms, data sets, evaluation, calibration, follow-up."""
