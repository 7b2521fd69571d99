"""Photos -> region features: backbones, how they run, and the store on disk."""
