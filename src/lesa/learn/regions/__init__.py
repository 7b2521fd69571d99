"""Photos -> region features: the backbones, how they run, and the store on the disk."""
