"""SpikeBottleNet: split points, spike codec, BottleNet++ and image codecs as baselines, bytes, energy, selection."""
