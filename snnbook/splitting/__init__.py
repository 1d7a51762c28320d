"""Splitting a deep SNN over edge devices (EC-SNN): class partitions, APoZ, structural pruning, sub-models, fusion."""
