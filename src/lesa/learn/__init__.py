"""The wing that learns: backbones, region features, the model, its losses and its training. Needs PyTorch."""
