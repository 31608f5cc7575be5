"""A site's own thresholds, from its own cases (VGG16-UNet paper 5.4, CoRSAI 5.4)."""
